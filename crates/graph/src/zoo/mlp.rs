//! Two hidden layers over the flat sample: tables, and the plainest baseline for anything else.

use super::Blueprint;
use crate::{Error, Graph, GraphBuilder};

/// Units of each hidden layer.
const HIDDEN: usize = 128;

pub(super) fn build(blueprint: &Blueprint<'_>, mut b: GraphBuilder) -> Result<Graph, Error> {
    let x = blueprint.input(&mut b, "input");
    let x = b.flatten("flat", &x);
    let x = b.linear("hidden1", &x, (blueprint.spec.domain.elements(), HIDDEN));
    let x = b.relu("hidden1.relu", &x);
    let x = b.linear("hidden2", &x, (HIDDEN, HIDDEN));
    let x = b.relu("hidden2.relu", &x);
    let logits = b.linear("head", &x, (HIDDEN, blueprint.outputs()));
    b.finish(&[&logits])
}
