//! Dermoscopy: skin with a mole (naevus) or a melanoma.
//!
//! Light goes through the epidermis and its melanin, is scattered in the dermis, and comes back past blood:
//!
//! ```text
//! RGB = light · skin · exp(-melanin · (0.75, 1.25, 1.75) - blood · (0.1, 0.6, 0.5)) mixed with a blue veil, then hair
//! ```
//!
//! What tells the classes apart are the ABC rules of dermoscopy: asymmetry (outline and pigment lean to one side), border (ragged
//! and abrupt instead of smooth and fading), colour (patches of black, red, white and blue-grey beside brown). Both have a pigment
//! network, regular or broken. The harder, the nearer are the amounts of both classes. Hair, its shadow, dim corners and the
//! lines of the skin are in all pictures. The mask is the outline of the lesion, in both classes.
//!
//! Source of the signs: Nachbar et al., J. Am. Acad. Dermatol. 30, 1994 (ABCD rule); melanin absorbs short waves most.

use std::f32::consts::TAU;

use nocebo_core::Domain;

use super::canvas::{Canvas, Node, outline, smooth_step};
use super::field::{Blob, Waves, bell, mix};
use super::{Drawing, Modality, Order, Storage, factor, normal, uniform};

/// Width and height of the picture in mm.
const FIELD: f32 = 14.0;
const MELANIN: [f32; 3] = [0.75, 1.25, 1.75];
const BLOOD: [f32; 3] = [0.1, 0.6, 0.5];

pub(super) const MODALITY: Modality = Modality {
    name: "dermoscopy",
    about: "dermoscopy of a naevus or a melanoma",
    classes: &["naevus", "melanoma"],
    size: 64,
    difficulty: 0.5,
    storage: Storage::Pictures,
    domain: |size| Domain::grey_levels(&[3, size, size], 255.0),
    draw,
};

fn draw(order: &Order) -> Drawing {
    let rng = &mut order.rng();
    let factor = factor(order.size, 192);
    let side = order.size * factor;
    // How malignant it looks, 0 to 1; the classes draw near when it is hard.
    let spread = 0.10 + 0.26 * order.difficulty;
    let away = 0.5 - 0.28 * order.difficulty;
    let mut sign = || (0.5 + if order.class == 1 { away } else { -away } + normal(rng, 0.0, spread)).clamp(0.0, 1.0);
    let (asymmetry, border, colour, structure) = (sign(), sign(), sign(), sign());

    let middle = FIELD / 2.0;
    let centre = (middle + normal(rng, 0.0, 0.6), middle + normal(rng, 0.0, 0.6));
    let radius = uniform(rng, 2.1, 3.9);
    let mut lesion = Blob::new(centre, (radius * 1.1, radius * uniform(rng, 0.75, 1.0)), 0.012 + 0.07 * asymmetry, rng);
    lesion.radii.0 *= 1.0 + 0.15 * asymmetry;
    let ragged = Waves::new(30, (0.6, 2.4), 0.5, rng);
    let cloud = Waves::new(20, (1.2, 5.0), 0.6, rng);
    let patches = [0; 3].map(|_| Waves::new(14, (1.8, 4.5), 0.3, rng));
    let (net_a, net_b) = (Waves::new(16, (0.38, 0.5), 0.0, rng), Waves::new(10, (0.8, 2.5), 0.4, rng));
    let (pores, lines) = (Waves::new(20, (0.25, 0.8), 0.3, rng), Waves::new(24, (0.9, 2.6), 0.2, rng));
    let lean = uniform(rng, 0.0, TAU);
    let thickness = uniform(rng, 0.55, 1.0);
    let tan = normal(rng, 0.0, 0.035);
    let tone =
        [normal(rng, 0.87, 0.01) + tan, normal(rng, 0.67, 0.012) + 1.1 * tan, normal(rng, 0.56, 0.015) + 1.1 * tan];
    let light = normal(rng, 1.05, 0.05);
    let lit = (middle + normal(rng, 0.0, 1.5), middle + normal(rng, 0.0, 1.5));
    let network = uniform(rng, 0.12, 0.3);

    let depth = |x: f32, y: f32| lesion.level(x, y) * radius + border * 0.17 * ragged.at(x, y);
    let softness = mix(0.9, 0.25, border);
    let mut planes = vec![Vec::new(); 3];
    let mut mask = Vec::with_capacity(side * side);
    let step = FIELD / side as f32;
    for at in 0..side * side {
        let (x, y) = ((at % side) as f32 * step + 0.5 * step, (at / side) as f32 * step + 0.5 * step);
        let inside = depth(x, y);
        let share = smooth_step(inside / softness + 0.5);
        mask.push(f32::from(inside > 0.0));
        let (u, v) = ((x - centre.0) / radius, (y - centre.1) / radius);
        let tilt = 0.55 * asymmetry * (u * lean.cos() + v * lean.sin());
        let core = 0.25 * smooth_step(inside / radius);
        // Meshes: lines where a wave is near its zero, broken up by a slower field.
        let mesh = bell(net_a.at(x, y) / 0.45) - 0.45;
        let whole = smooth_step(0.8 + net_b.at(x, y) * structure * 1.6) * (1.0 - 0.3 * structure);
        let mottle = (0.12 + 0.22 * colour) * cloud.at(x, y);
        let mut melanin = share * (thickness * (0.75 + core + mottle + tilt) + network * mesh * whole).max(0.05);
        let spot = |field: &Waves, share: f32| {
            smooth_step(2.2 * (field.at(x, y) - 1.9 + 1.7 * share)) * share * smooth_step(inside / 0.5)
        };
        melanin += 0.85 * spot(&patches[0], colour);
        let red = 0.06 * cloud.at(y, x) + 0.9 * spot(&patches[1], colour) * 0.8;
        let veil = 0.6 * spot(&patches[2], colour);
        melanin += 0.03 * pores.at(x, y) + 0.05 * bell(lines.at(x, y) / 0.18) + 0.03;
        let fall = light * (1.0 - 0.16 * ((x - lit.0).hypot(y - lit.1) / middle).powi(2));
        let corner = smooth_step((1.36 * middle - (x - middle).hypot(y - middle)) / 1.3);
        for channel in 0..3 {
            let skin = tone[channel] * (-MELANIN[channel] * melanin - BLOOD[channel] * red.max(-0.2)).exp();
            let seen = mix(skin, [0.42, 0.47, 0.56][channel], veil);
            planes[channel].push(255.0 * fall * corner * seen);
        }
    }
    // Hair: dark, curved, with a soft shadow and a shine along it.
    let mut hair = Canvas::new(side, FIELD, |_, _| 0.0);
    for _ in 0..uniform(rng, 0.0, 9.0) as usize {
        let (mut x, mut y, mut heading) = (uniform(rng, 0.0, FIELD), uniform(rng, 0.0, FIELD), uniform(rng, 0.0, TAU));
        let (bend, width) = (normal(rng, 0.0, 0.025), uniform(rng, 0.035, 0.075));
        let nodes: Vec<Node> = (0..uniform(rng, 20.0, 55.0) as usize)
            .map(|_| {
                heading += bend + normal(rng, 0.0, 0.015);
                x += 0.18 * heading.cos();
                y += 0.18 * heading.sin();
                Node { x, y, radius: width, weight: 1.0 / width }
            })
            .collect();
        hair.add_tube(&nodes, |d| (1.0 - d * d).sqrt());
    }
    let mut shadow = hair.clone();
    shadow.blur(0.12);
    let mut values = Vec::new();
    for (channel, mut plane) in planes.into_iter().enumerate() {
        for (value, (hair, shadow)) in plane.iter_mut().zip(hair.values().iter().zip(shadow.values())) {
            *value *= 1.0 - 0.25 * shadow.min(1.0);
            *value = mix(*value, [48.0, 36.0, 32.0][channel], 0.85 * hair.min(1.0));
        }
        let plane = Canvas::from_values(side, FIELD, plane).shrink(factor);
        values.extend(plane.values().iter().map(|&value| value + normal(rng, 0.0, 2.0)));
    }
    let mask = Canvas::from_values(side, FIELD, mask).shrink(factor);
    Drawing { values, mask: outline(mask.values(), 0.5) }
}
