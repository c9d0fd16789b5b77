//! Colour photographs of the fundus of the eye, with diabetic changes as the finding.
//!
//! Light crosses what lies before the reflecting layers and comes back, so colours follow Beer's law:
//!
//! ```text
//! RGB = light(x, y) · tissue · exp(-blood · (0.25, 2.2, 2.6) - pigment · (0.5, 1.0, 1.3)) + glare
//! ```
//!
//! Anatomy: optic disc with its cup, two arcades of arteries and veins that leave it and branch by Murray's law around the
//! macula, which is darker by its pigment; choroidal texture; light that falls off towards the edge of the round field.
//!
//! The finding: dots and blots of blood, small aneurysms, and hard exudates, yellow and sharp, that gather near the
//! macula. The harder, the fewer, smaller and fainter.
//!
//! Written from general ophthalmological knowledge; the absorption of blood is relative (green and blue most).

use std::f32::consts::{FRAC_PI_2, PI, TAU};

use nocebo_core::Domain;
use rand_chacha::ChaCha8Rng;

use super::canvas::{Canvas, Node, outline, smooth_step};
use super::field::{Blob, Waves, bell, mix};
use super::{Drawing, Modality, Order, Storage, chance, factor, normal, uniform};

/// Width and height of the picture in mm on the retina.
const FIELD: f32 = 13.6;
const BLOOD: [f32; 3] = [0.28, 1.9, 1.7];
const PIGMENT: [f32; 3] = [0.55, 1.1, 1.2];

pub(super) const MODALITY: Modality = Modality {
    name: "fundus",
    about: "colour photograph of the fundus, with haemorrhages and exudates",
    classes: &["normal", "retinopathy"],
    size: 64,
    difficulty: 0.65,
    storage: Storage::Pictures,
    domain: |size| Domain::grey_levels(&[3, size, size], 255.0),
    draw,
};

/// Grows a vessel of `radius` mm that turns towards `target` (an angle as a function of place), and its branches.
struct Tree<'a> {
    macula: (f32, f32),
    rng: &'a mut ChaCha8Rng,
    vessels: Vec<Vec<Node>>,
}

impl Tree<'_> {
    fn grow(&mut self, start: (f32, f32), heading: f32, radius: f32, bend: f32, weight: f32, depth: usize) {
        let (mut x, mut y, mut heading) = (start.0, start.1, heading);
        let mut nodes = vec![Node { x, y, radius, weight }];
        let (mut width, mut bend) = (radius, bend);
        let length = uniform(self.rng, 32.0, 42.0) * (radius / 0.07).powf(0.6);
        let mut next = uniform(self.rng, 3.0, 6.0);
        for step in 0..length as usize {
            heading += bend * 0.035 + normal(self.rng, 0.0, 0.05);
            bend *= 0.985;
            x += 0.22 * heading.cos();
            y += 0.22 * heading.sin();
            // Vessels keep away from the fovea.
            let (dx, dy) = (x - self.macula.0, y - self.macula.1);
            if dx.hypot(dy) < 0.7 {
                break;
            }
            nodes.push(Node { x, y, radius: width, weight });
            if step as f32 > next && depth < 4 && width > 0.022 {
                next += uniform(self.rng, 3.0, 7.0);
                let share = uniform(self.rng, 0.15, 0.45);
                // More branches towards the macula and outwards alike.
                let side = if chance(self.rng, 0.5) { 1.0 } else { -1.0 };
                let turn = heading + side * uniform(self.rng, 0.5, 1.0);
                let curl = -side * uniform(self.rng, 0.0, 0.8);
                self.grow((x, y), turn, width * share.cbrt() * 0.85, curl, weight, depth + 1);
                width *= (1.0 - share).cbrt();
            }
            width = (width * 0.992).max(0.012);
        }
        self.vessels.push(nodes);
    }
}

/// How much blood lies at each point, from both arcades, the nasal vessels and small ones towards the macula.
fn blood(side: usize, disc: (f32, f32), macula: (f32, f32), rng: &mut ChaCha8Rng) -> Canvas {
    let left = (disc.0 - macula.0).signum();
    let mut tree = Tree { macula, rng, vessels: Vec::new() };
    for up in [-1.0f32, 1.0] {
        for (weight, radius) in [(1.0f32, 0.088f32), (0.68, 0.068)] {
            let start = (disc.0 + normal(tree.rng, 0.0, 0.12) - left * 0.1, disc.1 + up * uniform(tree.rng, 0.05, 0.2));
            // Temporal arcade: up or down first, then around the macula.
            let arc = FRAC_PI_2 + left * uniform(tree.rng, 0.05, 0.4);
            let turn = left * up * uniform(tree.rng, 1.0, 1.35);
            let size = radius * uniform(tree.rng, 0.9, 1.1);
            tree.grow(start, up * arc, size, turn, weight, 0);
            let nasal = if left > 0.0 { 0.0 } else { PI };
            let lean = up * left * uniform(tree.rng, 0.5, 1.0);
            let curl = normal(tree.rng, 0.0, 0.3);
            tree.grow(start, nasal + lean, 0.75 * size, curl, weight, 1);
        }
        let inward = if left > 0.0 { PI } else { 0.0 };
        let start = (disc.0 - left * 0.5, disc.1 + up * 0.15);
        let lean = -up * left * uniform(tree.rng, 0.25, 0.6);
        tree.grow(start, inward + lean, 0.03, up * left * 0.5, 0.8, 3);
    }
    let mut blood = Canvas::new(side, FIELD, |_, _| 0.0);
    for vessel in &tree.vessels {
        let mut one = Canvas::new(side, FIELD, |_, _| 0.0);
        // A mean weight of 1 / radius makes the darkness independent of the width.
        let level: Vec<Node> = vessel
            .iter()
            .map(|node| Node { weight: node.weight * (0.4 + 0.6 * node.radius / 0.08) / node.radius, ..*node })
            .collect();
        one.add_tube(&level, |d| (1.0 - d * d).sqrt());
        blood.values_mut().iter_mut().zip(one.values()).for_each(|(sum, one)| *sum = sum.max(*one));
    }
    blood
}

/// Outlines and strengths of haemorrhages and of exudates.
fn lesions(order: &Order, macula: (f32, f32), rng: &mut ChaCha8Rng) -> [Vec<(Blob, f32)>; 2] {
    let ease = 1.0 - order.difficulty;
    let (mut spots, mut exudates) = (Vec::new(), Vec::new());
    if order.class == 1 {
        let middle = FIELD / 2.0;
        let place = |rng: &mut ChaCha8Rng| {
            let (turn, reach) = (uniform(rng, 0.0, TAU), 0.85 * middle * uniform(rng, 0.02, 1.0).sqrt());
            (middle + reach * turn.cos(), middle + reach * turn.sin())
        };
        for _ in 0..(uniform(rng, 2.0, 5.0) + 12.0 * ease * uniform(rng, 0.3, 1.0)) as usize {
            let radius = uniform(rng, 0.07, 0.12 + 0.3 * ease);
            let at = place(rng);
            spots.push((
                Blob::new(at, (radius, radius * uniform(rng, 0.5, 1.0)), 0.12, rng),
                uniform(rng, 0.5, 0.8) + 0.4 * ease,
            ));
        }
        let (centre, spread) =
            ((macula.0 + normal(rng, 0.0, 1.0), macula.1 + normal(rng, 0.0, 1.2)), uniform(rng, 0.5, 1.2));
        for _ in 0..(30.0 * ease * uniform(rng, 0.2, 1.0) + 2.0) as usize {
            let at = (normal(rng, centre.0, spread), normal(rng, centre.1, spread));
            let radius = uniform(rng, 0.05, 0.09 + 0.1 * ease);
            exudates
                .push((Blob::new(at, (radius, radius * uniform(rng, 0.5, 1.0)), 0.15, rng), uniform(rng, 0.5, 1.0)));
        }
    }
    [spots, exudates]
}

fn draw(order: &Order) -> Drawing {
    let rng = &mut order.rng();
    let factor = factor(order.size, 224);
    let side = order.size * factor;
    let left = if chance(rng, 0.5) { -1.0 } else { 1.0 };
    let middle = FIELD / 2.0;
    let disc = (middle + left * normal(rng, 3.2, 0.2), middle + normal(rng, 0.0, 0.25));
    let macula = (disc.0 - left * normal(rng, 4.5, 0.15), disc.1 + normal(rng, 0.4, 0.12));
    let disc_shape = Blob::new(disc, (normal(rng, 0.80, 0.05), normal(rng, 0.92, 0.05)), 0.015, rng).turned(0.0);
    let cup =
        Blob::new((disc.0 - left * 0.08, disc.1), (uniform(rng, 0.22, 0.42), uniform(rng, 0.25, 0.45)), 0.03, rng);

    let blood = blood(side, disc, macula, rng);
    let [spots, exudates] = lesions(order, macula, rng);

    let choroid = Waves::new(30, (0.5, 3.0), 0.5, rng);
    let shade = Waves::new(8, (6.0, 20.0), 0.5, rng);
    let hue = (normal(rng, 0.0, 0.06), normal(rng, 0.0, 0.08));
    let (light, lit) = (normal(rng, 1.0, 0.07), (middle + normal(rng, 0.0, 0.8), middle + normal(rng, 0.0, 0.8)));
    let tessellated = uniform(rng, 0.01, 0.05);
    let soft = 0.6 * FIELD / side as f32 + 0.03;
    let mut planes = vec![Vec::new(); 3];
    let mut mask = Canvas::new(side, FIELD, |_, _| 0.0);
    let step = FIELD / side as f32;
    for at in 0..side * side {
        let (x, y) = ((at % side) as f32 * step + 0.5 * step, (at / side) as f32 * step + 0.5 * step);
        let radius = (x - middle).hypot(y - middle);
        let shown = smooth_step((0.965 * middle - radius) / 0.12);
        if shown == 0.0 {
            planes.iter_mut().for_each(|plane| plane.push(0.0));
            continue;
        }
        let on_disc = smooth_step(disc_shape.level(x, y) * 0.85 / 0.22 + 0.4);
        let fovea = (x - macula.0).hypot(y - macula.1);
        let mut red = blood.values()[at] * 0.62;
        let mut pigment =
            0.3 * bell(fovea / 0.95) + 0.25 * bell(fovea / 0.35) + tessellated * choroid.at(x, y) * (1.0 - on_disc);
        pigment += 0.10 * bell((disc_shape.level(x, y) + 0.1) / 0.06);
        let mut yellow = 0.0f32;
        for (spot, amount) in &spots {
            let cover = spot.cover(x, y, soft);
            red = red.max(amount * cover);
            mask.values_mut()[at] = mask.values()[at].max(cover);
        }
        for (spot, amount) in &exudates {
            let cover = spot.cover(x, y, soft);
            yellow = yellow.max(amount * cover);
            mask.values_mut()[at] = mask.values()[at].max(cover);
        }
        let fall = 1.0 - 0.42 * ((x - lit.0).hypot(y - lit.1) / middle).powi(2).min(1.4) + 0.04 * shade.at(x, y);
        // A faint reflex of the foveal pit.
        let glare = 0.05 * bell((fovea - 0.12) / 0.08);
        let inner = cup.cover(x, y, 0.25);
        let tissue = [0.86 + hue.0, 0.42 + 0.5 * hue.0 + 0.4 * hue.1, 0.19 + 0.5 * hue.1];
        let pale = [0.98, 0.79 + 0.12 * inner, 0.52 + 0.24 * inner];
        for (channel, plane) in planes.iter_mut().enumerate() {
            let base = mix(tissue[channel], pale[channel], 0.92 * on_disc);
            let seen = base * (-BLOOD[channel] * red - PIGMENT[channel] * pigment).exp();
            let seen = mix(seen, [1.0, 0.87, 0.45][channel], 0.85 * yellow);
            plane.push(255.0 * shown * (light * fall * seen + glare));
        }
    }
    let mut values = Vec::new();
    for plane in planes {
        let small = Canvas::from_values(side, FIELD, plane).shrink(factor);
        values.extend(
            small.values().iter().map(|&value| if value > 4.0 { value + normal(rng, 0.0, 2.5) } else { value }),
        );
    }
    Drawing { values, mask: outline(mask.shrink(factor).values(), 0.4) }
}
