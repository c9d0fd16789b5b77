//! Records of an intensive-care stay, hour by hour, with the onset of sepsis as the finding.
//!
//! Each measurement of a patient wanders around a level of his own and comes back to it (first-order autoregression);
//! in sepsis all of them leave it together from an hour of onset on:
//!
//! ```text
//! x(h) = level + e(h) + severity · shift · rise((h - onset) / pace),   e(h) = ρ e(h - 1) + √(1-ρ²) · spread · normal
//! ```
//!
//! Patients without sepsis drift too: pain and fever come and go, in single columns. The harder, the later and milder the onset.
//! A sample is `[columns, hours]`, each column in its own unit and rounded as charts round.
//!
//! Written from general clinical knowledge (Singer et al., JAMA 315, 2016, for what changes); not from any records.

use nocebo_core::{DomainConfig, Field, Unit};

use super::canvas::smooth_step;
use super::{Drawing, Modality, Order, Storage, normal, uniform};
use crate::formats::table::{ColumnSchema, Kind};

/// One measurement.
pub(super) struct Column {
    pub(super) name: &'static str,
    unit: &'static str,
    /// Least and greatest value that can be recorded, and step.
    bounds: (f32, f32),
    pub(super) step: f32,
    /// Mean of the patients, spread of their levels, spread from hour to hour, and shift in full sepsis.
    level: f32,
    between: f32,
    within: f32,
    shift: f32,
}

const fn column(
    name: &'static str,
    unit: &'static str,
    bounds: (f32, f32),
    step: f32,
    [level, between, within, shift]: [f32; 4],
) -> Column {
    Column { name, unit, bounds, step, level, between, within, shift }
}

impl Column {
    /// What a table says about it; its spread is that of patients without sepsis.
    pub(super) fn schema(&self) -> ColumnSchema {
        // As written, and not the nearest single-precision number.
        let decimal = |value: f32| Some(format!("{value}").parse().unwrap_or(f64::from(value)));
        ColumnSchema {
            kind: Some(Kind::Number),
            unit: self.unit.to_owned(),
            minimum: decimal(self.bounds.0),
            maximum: decimal(self.bounds.1),
            step: decimal(self.step),
            standard_deviation: Some(f64::from(self.between.hypot(self.within))),
            ..ColumnSchema::default()
        }
    }
}

pub(super) const COLUMNS: [Column; 8] = [
    column("heart_rate", "1/min", (20.0, 220.0), 1.0, [82.0, 11.0, 5.0, 30.0]),
    column("respiratory_rate", "1/min", (4.0, 60.0), 1.0, [16.0, 2.5, 1.6, 9.0]),
    column("temperature", "Cel", (30.0, 43.0), 0.1, [36.9, 0.3, 0.2, 1.6]),
    column("mean_arterial_pressure", "mm[Hg]", (20.0, 180.0), 1.0, [84.0, 9.0, 4.5, -20.0]),
    column("oxygen_saturation", "%", (50.0, 100.0), 1.0, [97.0, 1.2, 0.8, -4.0]),
    column("lactate", "mmol/L", (0.2, 20.0), 0.1, [1.2, 0.35, 0.2, 2.4]),
    column("white_cells", "10*9/L", (0.1, 60.0), 0.1, [8.5, 2.2, 0.6, 7.0]),
    column("creatinine", "umol/L", (10.0, 900.0), 1.0, [82.0, 20.0, 5.0, 60.0]),
];

pub(super) const MODALITY: Modality = Modality {
    name: "ehr",
    about: "hourly vital signs and laboratory values, stable or becoming septic",
    classes: &["stable", "sepsis"],
    size: 24,
    difficulty: 0.5,
    storage: Storage::Table,
    domain: |size| {
        let each = |value: fn(&Column) -> f32| Field::PerChannel(COLUMNS.iter().map(value).collect());
        DomainConfig {
            shape: vec![COLUMNS.len(), size],
            unit: Unit::Other("unit of the column".to_owned()),
            lower: each(|column| column.bounds.0),
            upper: each(|column| column.bounds.1),
            resolution: each(|column| column.step),
            region: None,
        }
        .try_into()
    },
    draw,
};

fn draw(order: &Order) -> Drawing {
    let rng = &mut order.rng();
    let ease = 1.0 - order.difficulty;
    let hours = order.size as f32;
    let onset = hours * uniform(rng, 0.15 + 0.2 * order.difficulty, 0.45 + 0.4 * order.difficulty);
    let (pace, severity) = (hours * uniform(rng, 0.3, 0.7), uniform(rng, 0.3 + 0.2 * ease, 0.7 + 0.5 * ease));
    let severity = if order.class == 1 { severity } else { 0.0 };
    let memory = 0.75f32;
    let mut values = Vec::with_capacity(COLUMNS.len() * order.size);
    for column in &COLUMNS {
        let level = column.level + normal(rng, 0.0, column.between);
        let answer = severity * normal(rng, 1.0, 0.35);
        // A spell of this column alone.
        let (spell, when, long) = (normal(rng, 0.0, 0.3), uniform(rng, 0.0, hours), uniform(rng, 0.1, 0.4) * hours);
        let mut away = normal(rng, 0.0, column.within);
        for hour in 0..order.size {
            away = memory * away + (1.0 - memory * memory).sqrt() * normal(rng, 0.0, column.within);
            let hour = hour as f32;
            let sick = answer * smooth_step((hour - onset) / pace) + spell * super::field::bell((hour - when) / long);
            values.push(level + away + sick * column.shift);
        }
    }
    Drawing { values, mask: Vec::new() }
}
