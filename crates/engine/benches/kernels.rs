//! The engine's kernels, each by a network of one layer: `cargo bench -p nocebo-engine`, or with a part of a name behind it.
//!
//! Throughput is in multiplications of the direct convolution (bias and zeros outside included), so a number above the peak of
//! the processor means that a kernel does without some.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::fmt;

use divan::Bencher;
use divan::counter::ItemsCount;
use nocebo_core::{Domain, Norm, Seed, ThreatModel};
use nocebo_engine::{Engine, Options};
use nocebo_graph::GraphBuilder;
use nocebo_graph::operators::Convolution;
use rand::RngExt;

fn main() {
    divan::main();
}

/// A convolution for a batch of samples.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    batch: usize,
    sample: &'static [usize],
    outputs: usize,
    kernel: &'static [usize],
    stride: usize,
    dilation: usize,
    groups: usize,
    winograd: bool,
}

const PLAIN: Case = Case {
    name: "winograd",
    batch: 16,
    sample: &[64, 28, 28],
    outputs: 64,
    kernel: &[3, 3],
    stride: 1,
    dilation: 1,
    groups: 1,
    winograd: true,
};

const CASES: [Case; 12] = [
    PLAIN,
    Case { name: "winograd, many channels", sample: &[512, 7, 7], outputs: 512, batch: 8, ..PLAIN },
    Case { name: "gathered", winograd: false, ..PLAIN },
    Case { name: "gathered, stride 2", stride: 2, outputs: 128, ..PLAIN },
    Case { name: "stem", sample: &[3, 112, 112], kernel: &[7, 7], stride: 2, batch: 4, ..PLAIN },
    Case { name: "1x1", sample: &[256, 14, 14], outputs: 256, kernel: &[1, 1], ..PLAIN },
    Case { name: "depthwise", sample: &[96, 28, 28], outputs: 96, groups: 96, ..PLAIN },
    Case { name: "small groups", sample: &[8, 64, 128], outputs: 16, kernel: &[64, 1], groups: 8, batch: 2, ..PLAIN },
    Case { name: "signal", sample: &[64, 1000], kernel: &[7], ..PLAIN },
    Case { name: "volume, 8 channels", sample: &[8, 24, 24, 24], outputs: 8, kernel: &[3, 3, 3], batch: 2, ..PLAIN },
    Case {
        name: "volume, dilated",
        sample: &[16, 24, 24, 24],
        outputs: 16,
        kernel: &[3; 3],
        dilation: 8,
        batch: 2,
        ..PLAIN
    },
    Case { name: "volume", sample: &[32, 12, 12, 12], outputs: 32, kernel: &[3, 3, 3], batch: 2, ..PLAIN },
];

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

impl Case {
    /// The layer, samples for it, and its multiplications.
    fn build(&self) -> (Engine, Vec<f32>, usize) {
        let padding = |kernel: &usize| if self.groups == 8 { 0 } else { kernel / 2 * self.dilation };
        let pads: Vec<usize> = self.kernel.iter().map(padding).collect();
        let axes = self.kernel.len();
        let convolution = Convolution {
            kernel: self.kernel.to_vec(),
            pads: [pads.clone(), pads].concat(),
            dilations: vec![self.dilation; axes],
            ..Convolution::new(axes, self.stride, 0).grouped(self.groups)
        };
        let mut builder = GraphBuilder::new("layer", Seed(1));
        let x = builder.input("x", self.sample);
        let y = builder.convolution_with_bias("y", &x, (self.sample[0], self.outputs), 3, convolution);
        let options = Options { winograd: self.winograd, ..Options::default() };
        let engine = Engine::new(builder.finish(&[&y]).unwrap(), self.sample, options).unwrap();
        let multiplications =
            engine.width() * self.batch * self.kernel.iter().product::<usize>() * self.sample[0] / self.groups;
        (engine, numbers(self.batch * self.sample.iter().product::<usize>()), multiplications)
    }
}

fn numbers(count: usize) -> Vec<f32> {
    let mut generator = Seed(2).for_sample(0);
    (0..count).map(|_| generator.random_range(0.0..255.0)).collect()
}

#[divan::bench(args = CASES)]
fn forward(bencher: Bencher<'_, '_>, case: Case) {
    let (engine, inputs, multiplications) = case.build();
    bencher.counter(ItemsCount::new(multiplications)).bench_local(|| engine.outputs(&inputs));
}

#[divan::bench(args = CASES)]
fn forward_and_gradient(bencher: Bencher<'_, '_>, case: Case) {
    let (engine, inputs, multiplications) = case.build();
    let ones = |_: usize, _: usize, _: &[f32], slope: &mut [f32]| {
        slope.fill(1.0);
        Ok::<(), ()>(())
    };
    bencher.counter(ItemsCount::new(2 * multiplications)).bench_local(|| engine.gradients(&inputs, 1, ones));
}

/// The projection after a step of an attack on 64 colour images of 28×28; throughput in elements.
#[divan::bench(args = [Norm::Linf, Norm::L2, Norm::L1, Norm::L0])]
fn projection(bencher: Bencher<'_, '_>, norm: Norm) {
    let shape = [3, 28, 28];
    let elements: usize = shape.iter().product();
    let threat = ThreatModel::new(norm, 8.0, Domain::grey_levels(&shape, 255.0).unwrap()).unwrap();
    let clean = numbers(64 * elements);
    let moved: Vec<f32> =
        clean.iter().zip(clean.iter().skip(1).chain([&0.0])).map(|(a, b)| a + b / 16.0 - 8.0).collect();
    bencher.counter(ItemsCount::new(clean.len())).with_inputs(|| moved.clone()).bench_local_refs(|points| {
        for (clean, point) in clean.chunks_exact(elements).zip(points.chunks_exact_mut(elements)) {
            threat.project_row(clean, point);
        }
    });
}
