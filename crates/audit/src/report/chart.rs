//! Curves as inline SVG, told apart by colour, dash and marker.

use std::fmt::Write as _;

use super::markup::escape;
use crate::metrics::significant;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 384.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 612.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 320.0;
/// Least distance of two numbers on the axis below and on that above.
const LABEL_ROOM: (f64, f64) = (30.0, 52.0);

/// Dark enough on white (3 : 1 and more), and distinct in the common forms of colour blindness; after Okabe and Ito.
const COLOURS: [&str; 6] = ["#0072b2", "#c04d00", "#00785a", "#a8497f", "#7a5c00", "#4b3fa7"];
const DASHES: [&str; 3] = ["", "7 4", "2 3"];

/// How a curve is drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// The worst case: black and thick.
    Worst,
    /// The control: grey and dotted.
    Control,
    /// One of several, by number.
    Numbered(usize),
}

/// One curve: share over budget, with an interval where it has one.
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) look: Look,
    /// (budget, share), budgets ascending.
    pub(super) points: Vec<(f64, f64)>,
    /// (budget, lower, upper), drawn as a band.
    pub(super) band: Vec<(f64, f64, f64)>,
}

/// One chart with its axes.
pub(super) struct Chart<'a> {
    /// Unique in the document.
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    /// What a screen reader reads.
    pub(super) description: &'a str,
    pub(super) horizontal: &'a str,
    pub(super) vertical: &'a str,
    /// Budgets that get a tick.
    pub(super) ticks: Vec<f64>,
    /// What a budget is as a share of the range, for the axis at the top; none where that has no simple meaning.
    pub(super) share_of_range: Option<f64>,
    pub(super) curves: Vec<Curve>,
}

impl Chart<'_> {
    /// The chart as SVG, its legend below the axes.
    pub(super) fn svg(&self) -> String {
        let greatest = self.ticks.iter().copied().fold(0.0, f64::max);
        let scale = if greatest > 0.0 { greatest } else { 1.0 };
        let x = |budget: f64| LEFT + (RIGHT - LEFT) * budget / scale;
        let y = |share: f64| BOTTOM - (BOTTOM - TOP) * share;
        let (legend, legend_height) = self.legend();
        let height = HEIGHT + legend_height;
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-labelledby=\"{id}-title {id}-text\" \
             font-family=\"inherit\" font-size=\"14\" fill=\"#1b1f24\">\n<title id=\"{id}-title\">{}</title>\n\
             <desc id=\"{id}-text\">{}</desc>\n",
            escape(self.title),
            escape(self.description),
            id = self.id,
        );
        for fifth in 0..=5 {
            let (share, at) = (f64::from(fifth) / 5.0, y(f64::from(fifth) / 5.0));
            line(&mut svg, (LEFT, at), (RIGHT, at), if fifth == 0 { "#57606a" } else { "#e3e7eb" });
            text(&mut svg, (LEFT - 8.0, at + 5.0), "end", &format!("{:.0} %", 100.0 * share));
        }
        self.horizontal_axis(&mut svg, x);
        let _ = writeln!(
            svg,
            "<text x=\"16\" y=\"{middle}\" text-anchor=\"middle\" transform=\"rotate(-90 16 {middle})\">{}</text>",
            escape(self.vertical),
            middle = f64::midpoint(TOP, BOTTOM),
        );
        for curve in &self.curves {
            draw_band(&mut svg, curve, x, y);
        }
        for curve in &self.curves {
            draw_curve(&mut svg, curve, x, y);
        }
        svg.push_str(&legend);
        svg.push_str("</svg>\n");
        svg
    }

    fn horizontal_axis(&self, svg: &mut String, x: impl Fn(f64) -> f64) {
        let (mut last_below, mut last_above) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
        let mut budgets: Vec<f64> = std::iter::once(0.0).chain(self.ticks.iter().copied()).collect();
        budgets.dedup();
        for budget in budgets {
            let at = x(budget);
            line(svg, (at, BOTTOM), (at, BOTTOM + 5.0), "#57606a");
            if at - last_below >= LABEL_ROOM.0 {
                last_below = at;
                text(svg, (at, BOTTOM + 20.0), "middle", &significant(budget));
            }
            let Some(share) = self.share_of_range else { continue };
            line(svg, (at, TOP - 5.0), (at, TOP), "#57606a");
            if at - last_above >= LABEL_ROOM.1 {
                last_above = at;
                text(svg, (at, TOP - 10.0), "middle", &two_digits(100.0 * share * budget));
            }
        }
        text(svg, (f64::midpoint(LEFT, RIGHT), BOTTOM + 42.0), "middle", self.horizontal);
        if self.share_of_range.is_some() {
            text(svg, (f64::midpoint(LEFT, RIGHT), 13.0), "middle", "per cent of the range of the data");
        }
    }

    /// Entries in rows of three, and the height they take.
    fn legend(&self) -> (String, f64) {
        const COLUMN: f64 = 186.0;
        const ROW: f64 = 23.0;
        let mut svg = String::new();
        for (place, curve) in self.curves.iter().enumerate() {
            let left = LEFT + COLUMN * (place % 3) as f64;
            let at = HEIGHT + ROW * (place / 3) as f64;
            stroke(&mut svg, &format!("M{left} {at}H{}", left + 30.0), curve.look);
            marker(&mut svg, (left + 15.0, at), curve.look);
            text(&mut svg, (left + 37.0, at + 5.0), "start", &shortened(&curve.name));
        }
        (svg, ROW * self.curves.len().div_ceil(3) as f64)
    }
}

fn draw_band(svg: &mut String, curve: &Curve, x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) {
    if curve.band.len() < 2 {
        return;
    }
    let upper = curve.band.iter().map(|&(budget, _, upper)| (x(budget), y(upper)));
    let lower = curve.band.iter().rev().map(|&(budget, lower, _)| (x(budget), y(lower)));
    let points: Vec<String> = upper.chain(lower).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ =
        writeln!(svg, "<polygon points=\"{}\" fill=\"{}\" opacity=\"0.14\"/>", points.join(" "), colour(curve.look));
}

fn draw_curve(svg: &mut String, curve: &Curve, x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) {
    let path: Vec<String> = curve
        .points
        .iter()
        .enumerate()
        .map(|(place, &(budget, share))| {
            format!("{}{:.1} {:.1}", if place == 0 { 'M' } else { 'L' }, x(budget), y(share))
        })
        .collect();
    stroke(svg, &path.concat(), curve.look);
    for &(budget, share) in &curve.points {
        marker(svg, (x(budget), y(share)), curve.look);
    }
}

fn colour(look: Look) -> &'static str {
    match look {
        Look::Worst => "#000000",
        Look::Control => "#6e7781",
        Look::Numbered(number) => COLOURS[number % COLOURS.len()],
    }
}

fn stroke(svg: &mut String, path: &str, look: Look) {
    let (width, dash) = match look {
        Look::Worst => (6.0, ""),
        Look::Control => (2.2, "1 5"),
        Look::Numbered(number) => (2.2, DASHES[number / COLOURS.len() % DASHES.len()]),
    };
    let dash = if dash.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{dash}\"") };
    let _ = writeln!(
        svg,
        "<path d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{width}\" stroke-linecap=\"round\" \
         stroke-linejoin=\"round\"{dash}/>",
        colour(look)
    );
}

fn marker(svg: &mut String, (x, y): (f64, f64), look: Look) {
    let shape = match look {
        Look::Worst => format!("M{:.1} {:.1}h12v12h-12z", x - 6.0, y - 6.0),
        Look::Control => format!("M{:.1} {y:.1}h8M{x:.1} {:.1}v8", x - 4.0, y - 4.0),
        Look::Numbered(number) => match number % 4 {
            0 => format!("M{:.1} {y:.1}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z", x - 4.0),
            1 => format!("M{x:.1} {:.1}l5 8.5h-10z", y - 5.5),
            2 => format!("M{x:.1} {:.1}l5 5l-5 5l-5 -5z", y - 5.0),
            _ => format!("M{:.1} {:.1}l7 7m0 -7l-7 7", x - 3.5, y - 3.5),
        },
    };
    let fill = if matches!(look, Look::Control) { "none" } else { colour(look) };
    let _ = writeln!(svg, "<path d=\"{shape}\" fill=\"{fill}\" stroke=\"{}\" stroke-width=\"1.5\"/>", colour(look));
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, content: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escape(content));
}

/// A name that fits its column of the legend.
fn shortened(name: &str) -> String {
    const MOST: usize = 19;
    if name.chars().count() <= MOST { name.to_owned() } else { name.chars().take(MOST - 1).chain(['…']).collect() }
}

/// Two significant digits at most, for a crowded axis.
fn two_digits(value: f64) -> String {
    if value >= 1.0 { significant((value * 10.0).round() / 10.0) } else { significant((value * 100.0).round() / 100.0) }
}
