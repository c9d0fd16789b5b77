//! A signal before and after an attack, channel by channel, as inline SVG.

use std::fmt::Write as _;

use super::markup::escape;
use crate::Example;
use crate::metrics::significant;

/// Channels that are drawn: those that changed most.
const CHANNELS: usize = 4;
/// Steps that are drawn one by one; of a longer signal each stretch by its least and greatest value.
const STRETCHES: usize = 320;
const WIDTH: f64 = 640.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 632.0;
/// Of one channel: its name, the signal, and the perturbation below.
const ROW: f64 = 150.0;
const SIGNAL: (f64, f64) = (22.0, 102.0);
const CHANGE: (f64, f64) = (110.0, 144.0);

/// The channels that changed most; none for samples that are no signals.
pub(super) fn traces(example: &Example) -> Option<String> {
    let (channels, steps) = match *example.pair.shape() {
        [steps] if example.domain.columns().is_empty() => (1, steps),
        [channels, steps] => (channels, steps),
        _ => return None,
    };
    if example.pair.len() != 2 || steps < 2 {
        return None;
    }
    let (clean, perturbed) = (example.pair.row(0), example.pair.row(1));
    let part = |channel: usize| channel * steps..(channel + 1) * steps;
    let change = |channel: usize| -> Vec<f32> { part(channel).map(|place| perturbed[place] - clean[place]).collect() };
    let greatest = |channel: usize| change(channel).iter().fold(0.0_f32, |most, change| change.abs().max(most));
    let mut shown: Vec<usize> = (0..channels).collect();
    shown.sort_by(|&a, &b| greatest(b).total_cmp(&greatest(a)).then(a.cmp(&b)));
    shown.truncate(CHANNELS);
    shown.sort_unstable();
    let unit = escape(example.domain.unit().symbol());
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"Sample {} of {steps} steps: clean dotted, perturbed solid, \
         and the perturbation below\" font-family=\"inherit\" font-size=\"13\" fill=\"#1b1f24\">\n",
        ROW * shown.len() as f64,
        example.sample,
    );
    for (place, &channel) in shown.iter().enumerate() {
        let top = ROW * place as f64;
        let name = example
            .domain
            .columns()
            .get(channel)
            .map_or_else(|| format!("channel {channel}"), |column| column.name.clone());
        let (before, after, change) = (&clean[part(channel)], &perturbed[part(channel)], change(channel));
        let [least, most] = extremes(before.iter().chain(after));
        let most_change = f64::from(greatest(channel));
        let _ = writeln!(
            svg,
            "<text x=\"{LEFT}\" y=\"{:.1}\">{} in {unit}; below, the perturbation on its own scale, at most {}</text>",
            top + 14.0,
            escape(&name),
            significant(most_change),
        );
        for (value, at) in [(most, SIGNAL.0 + 10.0), (least, SIGNAL.1)] {
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                top + at,
                significant(value)
            );
        }
        let signal = |value: f32| top + SIGNAL.1 - (SIGNAL.1 - SIGNAL.0) * (f64::from(value) - least) / (most - least);
        let middle = top + f64::midpoint(CHANGE.0, CHANGE.1);
        let half = (CHANGE.1 - CHANGE.0) / 2.0;
        let small = |value: f32| middle - if value == 0.0 { 0.0 } else { half * f64::from(value) / most_change };
        path(&mut svg, after, signal, "stroke=\"#0072b2\" stroke-width=\"1.6\"");
        path(&mut svg, before, signal, "stroke=\"#1b1f24\" stroke-width=\"1.2\" stroke-dasharray=\"2 3\"");
        path(&mut svg, &change, small, "stroke=\"#c04d00\" stroke-width=\"1.2\"");
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

fn extremes<'a>(values: impl Iterator<Item = &'a f32>) -> [f64; 2] {
    let (least, most) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), &value| {
        (least.min(f64::from(value)), most.max(f64::from(value)))
    });
    if least < most { [least, most] } else { [least - 1.0, most + 1.0] }
}

fn path(svg: &mut String, values: &[f32], y: impl Fn(f32) -> f64, look: &str) {
    let x = |step: usize| LEFT + (RIGHT - LEFT) * step as f64 / (values.len() - 1) as f64;
    let stretch = values.len().div_ceil(STRETCHES);
    let mut drawn = String::new();
    let mut point = |step: usize| {
        let command = if drawn.is_empty() { 'M' } else { 'L' };
        let _ = write!(drawn, "{command}{:.1} {:.1}", x(step), y(values[step]));
    };
    for start in (0..values.len()).step_by(stretch) {
        let steps = start..(start + stretch).min(values.len());
        let least = steps.clone().min_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap_or(start);
        let most = steps.max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap_or(start);
        point(least.min(most));
        if least != most {
            point(least.max(most));
        }
    }
    let _ = writeln!(svg, "<path d=\"{drawn}\" fill=\"none\" {look}/>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Column, Domain, DomainConfig, Field, Norm, Samples, Unit};

    fn example(shape: &[usize], clean: &[f32], perturbed: &[f32]) -> Example {
        let config = DomainConfig {
            shape: shape.to_vec(),
            unit: Unit::Millivolt,
            lower: Field::Uniform(-5.0),
            upper: Field::Uniform(5.0),
            resolution: Field::Uniform(0.0),
            region: None,
        };
        Example {
            sample: 3,
            attack: "pgd".to_owned(),
            norm: Norm::Linf,
            epsilon: 0.1,
            label: "normal".to_owned(),
            clean_decision: "normal".to_owned(),
            perturbed_decision: "flutter".to_owned(),
            pair: Samples::new([clean, perturbed].concat(), shape).unwrap(),
            domain: Domain::try_from(config).unwrap(),
        }
    }

    #[test]
    fn a_signal_is_drawn_before_and_after_with_the_change_below() {
        let svg = traces(&example(&[1, 3], &[0.0, 1.0, -1.0], &[0.1, 1.0, -1.0])).unwrap();
        let paths: Vec<&str> = svg.split("<path d=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        // From −1 (102) to 1 (22), so that 0.1 lies at 58; the perturbation from 110 to 144.
        assert_eq!(
            paths,
            [
                "M72.0 58.0L352.0 22.0L632.0 102.0",
                "M72.0 62.0L352.0 22.0L632.0 102.0",
                "M72.0 110.0L352.0 127.0L632.0 127.0"
            ]
        );
        assert!(svg.contains("channel 0 in mV; below, the perturbation on its own scale, at most 0.1"), "{svg}");
    }

    #[test]
    fn of_many_channels_those_that_changed_most_are_drawn_in_their_order() {
        let clean = vec![0.0; 12];
        let changes = [0.5, 0.0, 0.1, 0.4, 0.0, 0.3].map(|change| [0.0, change]);
        let svg = traces(&example(&[6, 2], &clean, changes.as_flattened())).unwrap();
        let names: Vec<&str> = svg.split(">channel ").skip(1).map(|rest| &rest[..1]).collect();
        assert_eq!(names, ["0", "2", "3", "5"]);
    }

    #[test]
    fn a_long_signal_keeps_its_peaks() {
        let mut clean = vec![0.0; 10_000];
        clean[5_001] = 2.0;
        let svg = traces(&example(&[10_000], &clean, &clean)).unwrap();
        assert!(svg.len() < 40_000 && svg.contains(" 22.0"), "{} bytes", svg.len());
    }

    #[test]
    fn what_is_no_signal_has_no_traces() {
        assert!(traces(&example(&[1, 2, 2], &[0.0; 4], &[0.0; 4])).is_none());
        let mut table = example(&[2], &[0.0; 2], &[0.0; 2]);
        let columns = ["age", "glucose"].map(|name| Column {
            name: name.to_owned(),
            unit: String::new(),
            scale: 1.0,
            direction: None,
            sum: None,
        });
        table.domain = table.domain.with_columns(columns.to_vec()).unwrap();
        assert!(traces(&table).is_none());
    }
}
