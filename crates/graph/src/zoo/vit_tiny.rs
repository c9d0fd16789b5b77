//! Vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929) of the tiny size of DeiT (Touvron et al. 2021,
//! arXiv:2012.12877): 12 blocks, 192 channels, 3 heads.
//!
//! ```text
//! tokens = [class token, patches · W] + positions
//! block: x ← x + attention(norm(x));  x ← x + W₂ GELU(W₁ norm(x))
//! attention of a head: softmax(q kᵀ / √64) v
//! logits = W norm(x)[class token]
//! ```
//!
//! Patches are 16 pixels a side, and 4 for images of less than 64; the sides of an image are multiples of that. Tokens stand
//! row by row in a matrix, `[batch · tokens, channels]`, except inside the attention.
//!
//! Differs from the source: weights of matrices start as every linear layer here does, not from a truncated normal.
//!
//! 5,717,416 parameters for 3 channels, 1,000 classes and images of 224 pixels, as timm's `vit_tiny_patch16_224` has.

use super::Blueprint;
use crate::builder::Handle;
use crate::operators::{
    Activation, Arithmetic, Concat, Convolution, Expand, Gather, MatMul, Reshape, Shape, Softmax, Transpose,
};
use crate::{Error, Graph, GraphBuilder, Tensor};

const WIDTH: usize = 192;
const HEADS: usize = 3;
const BLOCKS: usize = 12;

/// Added to variances, as in timm.
const EPSILON: f32 = 1e-6;

pub(super) fn build(blueprint: &Blueprint<'_>, mut b: GraphBuilder) -> Result<Graph, Error> {
    let [channels, height, width] = blueprint.image("vit-tiny")?;
    let patch = if blueprint.is_large() { 16 } else { 4 };
    if !(height.is_multiple_of(patch) && width.is_multiple_of(patch)) {
        let expected = format!("an image with sides that are multiples of {patch}");
        return Err(Error::graph("input of vit-tiny", expected, format!("{height}×{width}")));
    }
    let tokens = 1 + (height / patch) * (width / patch);
    let x = blueprint.input(&mut b, "image");
    let x = b.convolution_with_bias("patch_embed.proj", &x, (channels, WIDTH), patch, Convolution::new(2, patch, 0));
    let x = reshaped(&mut b, "patch_embed.flat", &x, &[-1, WIDTH as i64, tokens as i64 - 1]);
    let x = b.node("patch_embed.tokens", Transpose { order: vec![0, 2, 1] }, &[&x]);
    let first = b.uniform("cls_token", &[1, 1, WIDTH], 0.02);
    let batch = b.node("batch", Shape { start: 0, end: Some(1) }, &[&x]);
    let one = b.constant("cls_token.sides", Tensor::list(&[1, WIDTH as i64]));
    let sides = b.node("cls_token.shape", Concat { axis: 0 }, &[&batch, &one]);
    let first = b.node("cls_token.expanded", Expand, &[&first, &sides]);
    let x = b.node("tokens", Concat { axis: 1 }, &[&first, &x]);
    let positions = b.uniform("pos_embed", &[1, tokens, WIDTH], 0.02);
    let x = b.add("positioned", &x, &positions);
    let mut x = reshaped(&mut b, "rows", &x, &[-1, WIDTH as i64]);
    for block in 0..BLOCKS {
        let name = |part: &str| format!("blocks.{block}.{part}");
        let y = b.layer_normalization(&name("norm1"), &x, WIDTH, EPSILON);
        let y = attention(&mut b, &name("attn"), &y, tokens);
        x = b.add(&name("add1"), &x, &y);
        let y = b.layer_normalization(&name("norm2"), &x, WIDTH, EPSILON);
        let y = b.linear(&name("mlp.fc1"), &y, (WIDTH, 4 * WIDTH));
        let y = b.node(&name("mlp.act"), Activation::Gelu { tanh: false }, &[&y]);
        let y = b.linear(&name("mlp.fc2"), &y, (4 * WIDTH, WIDTH));
        x = b.add(&name("add2"), &x, &y);
    }
    let x = reshaped(&mut b, "sequences", &x, &[-1, tokens as i64, WIDTH as i64]);
    let x = picked(&mut b, "class", &x, 1, 0);
    let x = b.layer_normalization("norm", &x, WIDTH, EPSILON);
    let logits = b.linear("head", &x, (WIDTH, blueprint.outputs()));
    b.finish(&[&logits])
}

fn attention(b: &mut GraphBuilder, name: &str, x: &Handle, tokens: usize) -> Handle {
    let part = |part: &str| format!("{name}.{part}");
    let head = WIDTH / HEADS;
    let x = b.linear(&part("qkv"), x, (WIDTH, 3 * WIDTH));
    let x = reshaped(b, &part("heads"), &x, &[-1, tokens as i64, 3, HEADS as i64, head as i64]);
    let x = b.node(&part("by_role"), Transpose { order: vec![2, 0, 3, 1, 4] }, &[&x]);
    let [query, key, value] = [("q", 0), ("k", 1), ("v", 2)].map(|(role, index)| picked(b, &part(role), &x, 0, index));
    let key = b.node(&part("k.transposed"), Transpose { order: vec![0, 1, 3, 2] }, &[&key]);
    let scale = b.constant(&part("scale"), Tensor::scalar((head as f32).powf(-0.5)));
    let query = b.node(&part("q.scaled"), Arithmetic::Mul, &[&query, &scale]);
    let scores = b.node(&part("scores"), MatMul, &[&query, &key]);
    let weights = b.node(&part("weights"), Softmax::LAST, &[&scores]);
    let mixed = b.node(&part("mixed"), MatMul, &[&weights, &value]);
    let mixed = b.node(&part("by_token"), Transpose { order: vec![0, 2, 1, 3] }, &[&mixed]);
    let mixed = reshaped(b, &part("joined"), &mixed, &[-1, WIDTH as i64]);
    b.linear(&part("proj"), &mixed, (WIDTH, WIDTH))
}

fn reshaped(b: &mut GraphBuilder, name: &str, x: &Handle, shape: &[i64]) -> Handle {
    let shape = b.constant(&format!("{name}.shape"), Tensor::list(shape));
    b.node(name, Reshape { allow_zero: false }, &[x, &shape])
}

/// The slice at `index` of an axis, which goes.
fn picked(b: &mut GraphBuilder, name: &str, x: &Handle, axis: i64, index: i64) -> Handle {
    let index = b.constant(&format!("{name}.index"), Tensor::integer(index));
    b.node(name, Gather { axis }, &[x, &index])
}
