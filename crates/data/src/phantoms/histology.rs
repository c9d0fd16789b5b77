//! Histology: a tile of glandular tissue stained with haematoxylin and eosin, normal or tumour.
//!
//! Stain absorbs light, so colours follow Beer's law with one absorption vector a stain:
//!
//! ```text
//! RGB = 255 · exp(-haematoxylin · (0.65, 0.70, 0.29) · 2.3 - eosin · (0.07, 0.99, 0.11) · 2.3)
//! ```
//!
//! Normal tissue has round glands: a ring of cells with oval nuclei at their outer side around a pale lumen, in pink stroma with
//! thin dark nuclei along its fibres. In a tumour the rings crowd together and lose their lumen, nuclei are large, dark, uneven in
//! size and form and lie anywhere in their cells, and some cells divide (dark, ragged plates). The harder, the fewer of the nuclei
//! are changed, and the more of normal ones are (reactive change). The mask is the area of a tumour's changed nuclei.
//!
//! Source of the vectors: Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 23, 2001.

use std::f32::consts::{FRAC_PI_2, TAU};

use nocebo_core::Domain;
use rand_chacha::ChaCha8Rng;

use super::canvas::{Canvas, outline, smooth_step};
use super::field::{Blob, Waves, bell, mix};
use super::{Drawing, Modality, Order, Storage, chance, factor, normal, uniform};

/// Width and height of the tile in µm.
const FIELD: f32 = 160.0;
const HAEMATOXYLIN: [f32; 3] = [0.65, 0.70, 0.29];
const EOSIN: [f32; 3] = [0.07, 0.99, 0.11];

pub(super) const MODALITY: Modality = Modality {
    name: "histology",
    about: "H&E tile of glandular tissue, normal or tumour",
    classes: &["normal", "tumour"],
    size: 64,
    difficulty: 0.75,
    storage: Storage::Pictures,
    domain: |size| Domain::grey_levels(&[3, size, size], 255.0),
    draw,
};

/// A nucleus and how dark it is; whether the cell is a tumour's.
struct Nucleus {
    outline: Blob,
    stain: f32,
    changed: bool,
}

struct Tissue {
    /// Outer edge of each gland, and the share of its radius that the lumen takes.
    glands: Vec<(Blob, f32)>,
    nuclei: Vec<Nucleus>,
}

impl Tissue {
    fn draw(order: &Order, rng: &mut ChaCha8Rng) -> Self {
        // Share of cells that are changed, and how much.
        let ease = 1.0 - order.difficulty;
        let change = if order.class == 1 {
            uniform(rng, 0.1 + 0.4 * ease, 0.3 + 0.7 * ease)
        } else {
            uniform(rng, 0.0, 0.25 * order.difficulty)
        };
        let mut tissue = Self { glands: Vec::new(), nuclei: Vec::new() };
        let radius = uniform(rng, 24.0, 34.0) * (1.0 - 0.15 * change);
        for _ in 0..300 {
            let centre = (uniform(rng, -20.0, FIELD + 20.0), uniform(rng, -20.0, FIELD + 20.0));
            let size = radius * uniform(rng, 0.8, 1.15);
            let free = tissue.glands.iter().all(|(other, _)| {
                let apart = (other.centre.0 - centre.0).hypot(other.centre.1 - centre.1);
                apart > (size + other.radii.0) * (1.12 - 0.1 * change)
            });
            if free {
                let lumen = (uniform(rng, 0.35, 0.5) - 0.35 * change * uniform(rng, 0.3, 1.0)).max(0.06);
                tissue
                    .glands
                    .push((Blob::new(centre, (size, size * uniform(rng, 0.8, 1.0)), 0.03 + 0.05 * change, rng), lumen));
            }
        }
        for gland in 0..tissue.glands.len() {
            let (outline, lumen) = tissue.glands[gland].clone();
            let rows = if chance(rng, change) { 2 } else { 1 };
            for row in 0..rows {
                let around = TAU * outline.radii.0 * (0.8 - 0.3 * row as f32) / (6.4 + 1.5 * change);
                for cell in 0..around as usize {
                    let turn = TAU * (cell as f32 + uniform(rng, -0.25, 0.25)) / around.floor();
                    let changed = chance(rng, change);
                    let height = if changed {
                        uniform(rng, lumen.max(0.25), 0.9)
                    } else {
                        normal(rng, 0.80 - 0.33 * row as f32, 0.03)
                    };
                    let (x, y) = (
                        outline.centre.0 + height * outline.radii.0 * turn.cos(),
                        outline.centre.1 + height * outline.radii.1 * turn.sin(),
                    );
                    tissue.nucleus((x, y), turn, (4.4, 2.7), changed, rng);
                }
            }
        }
        // Stroma: spindles along the fibres, and a few round lymphocytes.
        for _ in 0..400 {
            let centre = (uniform(rng, 0.0, FIELD), uniform(rng, 0.0, FIELD));
            let outside = tissue.glands.iter().all(|(gland, _)| gland.level(centre.0, centre.1) < -0.06);
            let crowded = tissue
                .nuclei
                .iter()
                .any(|other| (other.outline.centre.0 - centre.0).hypot(other.outline.centre.1 - centre.1) < 8.5);
            if outside && !crowded {
                let turn = normal(rng, 0.6, 0.4);
                if chance(rng, 0.25) {
                    tissue.nucleus(centre, turn, (2.6, 2.4), false, rng);
                } else {
                    tissue.nucleus(centre, turn, (4.8, 1.2), false, rng);
                }
            }
        }
        tissue
    }

    fn nucleus(&mut self, centre: (f32, f32), turn: f32, radii: (f32, f32), changed: bool, rng: &mut ChaCha8Rng) {
        let (outline, stain) = if changed && chance(rng, 0.06) {
            // A cell that divides: a ragged dark plate.
            (Blob::new(centre, (4.8, 1.5), 0.16, rng).turned(uniform(rng, 0.0, TAU)), 1.7)
        } else if changed {
            let size = uniform(rng, 1.05, 1.75);
            let outline = Blob::new(centre, (3.9 * size, 3.0 * size), 0.07, rng).turned(turn + normal(rng, 0.0, 0.9));
            (outline, uniform(rng, 0.75, 1.25))
        } else {
            let size = normal(rng, 1.0, 0.07);
            (
                Blob::new(centre, (radii.0 * size, radii.1 * size), 0.025, rng).turned(turn + normal(rng, 0.0, 0.12)),
                uniform(rng, 0.6, 0.85),
            )
        };
        self.nuclei.push(Nucleus { outline, stain, changed });
    }
}

fn draw(order: &Order) -> Drawing {
    let rng = &mut order.rng();
    let tissue = Tissue::draw(order, rng);
    let factor = factor(order.size, 192);
    let side = order.size * factor;
    let step = FIELD / side as f32;
    let (stretch, turn) = (uniform(rng, 2.5, 4.0), 0.6f32);
    let fibres = Waves::new(36, (3.0, 16.0), 0.4, rng);
    let grain = Waves::new(24, (2.0, 6.0), 0.2, rng);
    let chromatin = Waves::new(24, (1.2, 3.2), 0.2, rng);
    let (strength, balance) = (normal(rng, 1.0, 0.1), normal(rng, 1.0, 0.12));

    let (mut blue, mut pink, mut mask) =
        (vec![0.0f32; side * side], vec![0.0f32; side * side], vec![0.0f32; side * side]);
    for at in 0..side * side {
        let (x, y) = ((at % side) as f32 * step + 0.5 * step, (at / side) as f32 * step + 0.5 * step);
        let (u, v) = (turn.cos() * x + turn.sin() * y, turn.cos() * y - turn.sin() * x);
        // Wavy bundles of collagen with gaps.
        let bundle = fibres.at(u / stretch, v + 2.0 * grain.at(u / 20.0, 0.0));
        pink[at] = 0.25 + 0.07 * bundle - 0.14 * bell((bundle + 1.7) / 0.25);
        for (gland, lumen) in &tissue.glands {
            let level = gland.level(x, y);
            if level > -0.2 {
                let inside = smooth_step(level * gland.radii.0 / 1.5 + 0.5);
                let empty = smooth_step((1.0 - level < *lumen + 0.03 * grain.at(x, y)).into());
                // Granular cytoplasm, darker at its base, and thin borders between the cells.
                let (dx, dy) = (x - gland.centre.0, y - gland.centre.1);
                let cells = (TAU * gland.radii.0 * 0.8 / 6.4).floor();
                let border = bell((dy.atan2(dx) * cells / 2.0 + FRAC_PI_2).sin() / 0.10);
                let cytoplasm = 0.24 + 0.04 * grain.at(x, y) + 0.10 * border + 0.10 * (1.0 - level);
                pink[at] = mix(pink[at], mix(cytoplasm, 0.02, empty), inside);
                blue[at] = mix(blue[at], 0.10 * (1.0 - empty), inside);
            }
        }
    }
    // Each nucleus on the pixels around it.
    for nucleus in &tissue.nuclei {
        let reach = 1.5 * nucleus.outline.radii.0;
        let range = |centre: f32| {
            let bound = |value: f32| (value / step).clamp(0.0, side as f32) as usize;
            bound(centre - reach)..bound(centre + reach + step)
        };
        for row in range(nucleus.outline.centre.1) {
            for column in range(nucleus.outline.centre.0) {
                let (x, y) = ((column as f32 + 0.5) * step, (row as f32 + 0.5) * step);
                let cover = nucleus.outline.cover(x, y, 0.7);
                let rim = bell(nucleus.outline.level(x, y) / 0.16);
                let stain = nucleus.stain * (0.72 + 0.35 * rim + 0.16 * chromatin.at(x, y));
                let at = row * side + column;
                blue[at] = mix(blue[at], blue[at].max(stain), cover);
                pink[at] = mix(pink[at], 0.18, cover);
                if nucleus.changed && order.class == 1 {
                    mask[at] = mask[at].max(cover);
                }
            }
        }
    }
    let mut values = Vec::new();
    for channel in 0..3 {
        let plane = blue.iter().zip(&pink).map(|(blue, pink)| {
            let (blue, pink) = (strength * balance * blue.max(0.0), strength * pink.max(0.0) / balance);
            243.0 * (-2.0 * (HAEMATOXYLIN[channel] * blue + EOSIN[channel] * 0.95 * pink)).exp()
        });
        let mut plane = Canvas::from_values(side, FIELD, plane.collect());
        plane.blur(0.6);
        values.extend(plane.shrink(factor).values().iter().map(|&value| value + normal(rng, 0.0, 2.0)));
    }
    let mask = Canvas::from_values(side, FIELD, mask).shrink(factor);
    Drawing { values, mask: outline(mask.values(), 0.5) }
}
