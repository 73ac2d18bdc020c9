//! Charts as SVG text, for a page without scripts: bars in groups, and lines.
//!
//! Text is drawn as text, so that it can be searched, copied and read aloud.

use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Width and height, pixels of the drawing's own; the page scales it.
const SIZE: (u32, u32) = (860, 360);

/// Room for the names of lines at their ends.
const NAMES: u32 = 120;

const FONT: &str = "sans-serif";

/// Bars side by side in groups.
#[derive(Debug, Clone, Default)]
pub struct Bars {
    /// Under each group.
    pub groups: Vec<String>,
    /// One bar of each group: a name, and a value or none for each of the groups.
    pub series: Vec<(String, Vec<Option<f64>>)>,
    /// What the values are, with their unit.
    pub axis: String,
}

/// Lines through points.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    /// A name and its points.
    pub series: Vec<(String, Vec<(f64, f64)>)>,
    /// What the horizontal positions are.
    pub across: String,
    /// What the heights are.
    pub up: String,
    /// How positions are written and laid out.
    pub scale: Scale,
}

/// How a chart of lines is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scale {
    /// Powers of ten across, from 0 up.
    #[default]
    Counts,
    /// Nines across (1 is 90 %, 2 is 99 %), powers of ten up.
    Percentiles,
}

/// Who has which colour, the same in all charts and dark enough on white.
const COLOURS: [(&str, RGBColor); 9] = [
    ("bare", RGBColor(120, 120, 120)),
    ("ringgate", RGBColor(25, 90, 190)),
    ("kernel", RGBColor(130, 60, 170)),
    ("nftables", RGBColor(200, 90, 0)),
    ("nftables-flowtable", RGBColor(150, 120, 0)),
    ("haproxy", RGBColor(0, 135, 90)),
    ("nginx", RGBColor(190, 30, 60)),
    ("wire", RGBColor(90, 60, 40)),
    ("wake-up", RGBColor(0, 140, 160)),
];

fn colour(name: &str, place: usize) -> RGBColor {
    let known = COLOURS.iter().find(|(who, _)| *who == first_word(name));
    let other = || COLOURS.get((place + 2) % COLOURS.len());
    known.or_else(other).map_or(BLACK, |(_, colour)| *colour)
}

/// The colour of the name at `place`. Several of one contestant differ by their strength.
fn shade(names: &[&str], place: usize) -> RGBAColor {
    let name = names.get(place).copied().unwrap_or("");
    let earlier = names.iter().take(place);
    let earlier = earlier.filter(|other| first_word(other) == first_word(name));
    colour(name, place).mix(1.0 - 0.28 * earlier.count().min(3) as f64)
}

impl Bars {
    /// The drawing.
    ///
    /// # Errors
    ///
    /// In words: nothing to draw, or what the library says.
    pub fn draw(&self) -> Result<String, String> {
        let values = self.series.iter().flat_map(|(_, values)| values).flatten();
        let highest = values
            .copied()
            .filter(|one| one.is_finite())
            .reduce(f64::max);
        let highest = highest.ok_or("no bars")?.max(f64::MIN_POSITIVE);
        svg(|root| {
            let groups = self.groups.len().max(1) as f64;
            let mut chart = ChartBuilder::on(root)
                .margin(14)
                .x_label_area_size(34)
                .y_label_area_size(78)
                .margin_top(34)
                .build_cartesian_2d(0.0..groups, 0.0..highest * 1.12)?;
            chart
                .configure_mesh()
                .disable_x_mesh()
                .x_labels(0)
                .y_desc(self.axis.as_str())
                .y_label_formatter(&|value| short(*value))
                .label_style((FONT, 13))
                .light_line_style(TRANSPARENT)
                .draw()?;
            let width = 0.8 / self.series.len().max(1) as f64;
            let mut labels = Vec::new();
            for (place, (name, values)) in self.series.iter().enumerate() {
                let fill = colour(name, place).filled();
                for (group, value) in values.iter().enumerate() {
                    let left = group as f64 + 0.1 + width * place as f64;
                    let right = left + width * 0.94;
                    let Some(value) = value.filter(|one| one.is_finite()) else {
                        let foot = chart.backend_coord(&((left + right) / 2.0, 0.0));
                        labels.push(("none".to_owned(), (foot.0, foot.1 - 3), VPos::Bottom, 12));
                        continue;
                    };
                    let bar = Rectangle::new([(left, 0.0), (right, value)], fill);
                    chart.draw_series(std::iter::once(bar))?;
                    let top = chart.backend_coord(&((left + right) / 2.0, value));
                    labels.push((short(value), (top.0, top.1 - 3), VPos::Bottom, 12));
                }
            }
            for (group, name) in self.groups.iter().enumerate() {
                let middle = chart.backend_coord(&(group as f64 + 0.5, 0.0));
                labels.push((name.clone(), (middle.0, middle.1 + 8), VPos::Top, 13));
            }
            for (text, at, height, size) in labels {
                let style = (FONT, size).into_text_style(root);
                root.draw(&Text::new(
                    text,
                    at,
                    style.pos(Pos::new(HPos::Center, height)),
                ))?;
            }
            legend(root, self.series.iter().map(|(name, _)| name.as_str()))
        })
    }
}

impl Lines {
    /// The drawing.
    ///
    /// # Errors
    ///
    /// In words: nothing to draw, or what the library says.
    pub fn draw(&self) -> Result<String, String> {
        let finite = |(x, y): &&(f64, f64)| x.is_finite() && y.is_finite();
        let points = || {
            self.series
                .iter()
                .flat_map(|(_, points)| points)
                .filter(finite)
        };
        let extent = |of: fn(&(f64, f64)) -> f64| {
            let least = points().map(of).reduce(f64::min);
            least.zip(points().map(of).reduce(f64::max))
        };
        let (across, up) = extent(|point| point.0)
            .zip(extent(|point| point.1))
            .ok_or("no points")?;
        svg(|root| {
            let mut builder = ChartBuilder::on(root);
            builder
                .margin(14)
                .x_label_area_size(46)
                .y_label_area_size(78)
                .margin_top(34)
                .margin_right(NAMES);
            match self.scale {
                Scale::Counts => {
                    // A single position has a way around it, too.
                    let across = across.0.max(1.0) * 0.7..across.1.max(1.0) * 1.5;
                    let chart = builder
                        .build_cartesian_2d(across.log_scale(), 0.0..up.1.max(1.0) * 1.12)?;
                    self.lines(root, chart, &|x| short(*x))
                }
                Scale::Percentiles => {
                    let up = up.0.max(0.01) * 0.7..up.1.max(0.01) * 1.5;
                    let chart = builder
                        .build_cartesian_2d(across.0.min(0.0)..across.1.max(1.0), up.log_scale())?;
                    self.lines(root, chart, &percentile)
                }
            }
        })
    }

    fn lines<X, Y>(
        &self,
        root: &Drawing<'_>,
        mut chart: ChartContext<'_, SVGBackend<'_>, Cartesian2d<X, Y>>,
        position: &dyn Fn(&f64) -> String,
    ) -> Drawn
    where
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        chart
            .configure_mesh()
            .x_desc(self.across.as_str())
            .y_desc(self.up.as_str())
            .x_labels(6)
            .x_label_formatter(&|value| position(value))
            .y_label_formatter(&|value| short(*value))
            .label_style((FONT, 13))
            .light_line_style(TRANSPARENT)
            .draw()?;
        let names: Vec<&str> = self.series.iter().map(|(name, _)| name.as_str()).collect();
        let mut ends = Vec::new();
        for (place, (name, points)) in self.series.iter().enumerate() {
            let line = shade(&names, place).stroke_width(2);
            let points: Vec<_> = points.iter().filter(finite_point).copied().collect();
            chart.draw_series(LineSeries::new(points.iter().copied(), line))?;
            chart.draw_series(
                points
                    .iter()
                    .map(|&point| Circle::new(point, 3, line.filled())),
            )?;
            if let Some(last) = points.last() {
                ends.push((chart.backend_coord(last), name));
            }
        }
        // Each line has its name at its end, so that colours are not needed.
        for ((across, up), name) in apart(ends) {
            let style = (FONT, 12).into_text_style(root);
            let style = style.pos(Pos::new(HPos::Left, VPos::Center));
            root.draw(&Text::new(name.clone(), (across + 8, up), style))?;
        }
        legend(root, names.into_iter())
    }
}

/// Names beside one another, their order kept, far enough from each other to be read.
fn apart<T>(mut ends: Vec<((i32, i32), T)>) -> Vec<((i32, i32), T)> {
    const LINE: i32 = 14;
    ends.sort_by_key(|((_, up), _)| *up);
    // Half of what they need goes upwards.
    let mut lowest = i32::MIN;
    let mut pushed = 0;
    for ((_, up), _) in &mut ends {
        let free = (*up).max(lowest.saturating_add(LINE));
        pushed = pushed.max(free - *up);
        (*up, lowest) = (free, free);
    }
    for ((_, up), _) in &mut ends {
        *up -= pushed / 2;
    }
    ends
}

fn finite_point(point: &&(f64, f64)) -> bool {
    point.0.is_finite() && point.1.is_finite()
}

fn first_word(name: &str) -> &str {
    name.split_whitespace().next().unwrap_or(name)
}

type Drawing<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// An empty drawing, drawn upon.
fn svg(draw: impl FnOnce(&Drawing<'_>) -> Drawn) -> Result<String, String> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        let drawn = draw(&root).and_then(|()| Ok(root.present()?));
        drawn.map_err(|error| error.to_string())?;
    }
    // A page of HTML needs no name space, and this way it names nothing elsewhere.
    Ok(text.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1))
}

/// Names in their colours along the upper edge.
fn legend<'n>(root: &Drawing<'_>, names: impl Iterator<Item = &'n str>) -> Drawn {
    let mut left = 84;
    let names: Vec<&str> = names.collect();
    for (place, name) in names.iter().copied().enumerate() {
        let fill = shade(&names, place).filled();
        root.draw(&Rectangle::new([(left, 10), (left + 12, 22)], fill))?;
        let style = (FONT, 13).into_text_style(root);
        root.draw(&Text::new(name.to_owned(), (left + 17, 9), style))?;
        left += 40 + 7 * i32::try_from(name.len()).unwrap_or(10);
    }
    Ok(())
}

/// A number as an axis has it: 250k, 1.5M, 0.95.
#[must_use]
pub fn short(value: f64) -> String {
    let trimmed = |value: f64, unit: &str| {
        let digits = match value.abs() {
            size if size >= 100.0 => 0,
            size if size >= 10.0 => 1,
            _ => 2,
        };
        let text = format!("{value:.digits$}");
        let text = if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text
        };
        format!("{text}{unit}")
    };
    match value.abs() {
        size if size >= 1e6 => trimmed(value / 1e6, "M"),
        size if size >= 1e3 => trimmed(value / 1e3, "k"),
        _ => trimmed(value, ""),
    }
}

/// Where the highest of all values stands, whatever share it is.
pub(crate) const MOST_NINES: f64 = 5.0;

/// Nines as a percentile: 2 is 99 %.
fn percentile(nines: &f64) -> String {
    if *nines >= MOST_NINES {
        return "most".to_owned();
    }
    let share = 100.0 * (1.0 - 10f64.powf(-nines));
    let text = format!("{share:.3}");
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_right() {
        for (value, text) in [
            (0.0, "0"),
            (0.951, "0.95"),
            (37.25, "37.2"),
            (100.0, "100"),
            (264_205.0, "264k"),
            (1_000.0, "1k"),
            (1_500_000.0, "1.5M"),
        ] {
            assert_eq!(short(value), text);
        }
        assert_eq!(
            [0.0, 1.0, 2.0, 3.0, 4.0, 5.0].map(|nines| percentile(&nines)),
            ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "most"]
        );
    }

    #[test]
    fn bars_show_every_value_and_leave_out_what_is_not_there() {
        let bars = Bars {
            groups: vec!["nat".to_owned(), "gue".to_owned()],
            series: vec![
                ("bare".to_owned(), vec![Some(270_000.0), Some(268_000.0)]),
                ("ringgate".to_owned(), vec![Some(255_000.0), None]),
                ("x".to_owned(), vec![Some(f64::NAN), None]),
            ],
            axis: "frames/s".to_owned(),
        };
        let svg = bars.draw().unwrap();
        for text in ["270k", "268k", "255k", "nat", "gue", "ringgate", "frames/s"] {
            assert!(svg.contains(text), "no {text}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("http"));
        // What is not there is said.
        assert_eq!(svg.matches("none\n").count(), 3, "{svg}");
        // Three bars, a legend of three.
        assert_eq!(svg.matches("<rect").count(), 6, "{svg}");
        assert!(Bars::default().draw().is_err());
    }

    #[test]
    fn names_do_not_lie_upon_each_other() {
        let ends = vec![
            ((9, 100), "a"),
            ((9, 103), "b"),
            ((9, 20), "c"),
            ((9, 104), "d"),
        ];
        let apart = apart(ends);
        let order: Vec<&str> = apart.iter().map(|(_, name)| *name).collect();
        assert_eq!(order, ["c", "a", "b", "d"]);
        for pair in apart.windows(2) {
            assert!(pair[1].0.1 - pair[0].0.1 >= 14, "{apart:?}");
        }
    }

    #[test]
    fn a_contestant_has_one_colour_in_all_charts() {
        assert_eq!(colour("nftables 50 %", 0), colour("nftables", 3));
        assert_ne!(colour("haproxy", 0), colour("nginx", 0));
        let names = ["bare 50 %", "ringgate 50 %", "bare 90 %"];
        assert_ne!(shade(&names, 0), shade(&names, 2));
    }

    #[test]
    fn lines_go_through_their_points() {
        for scale in [Scale::Counts, Scale::Percentiles] {
            let lines = Lines {
                series: vec![(
                    "ringgate 50 %".to_owned(),
                    vec![(1.0, 20.0), (2.0, 45.0), (f64::NAN, 1.0), (3.0, 300.0)],
                )],
                scale,
                ..Lines::default()
            };
            let svg = lines.draw().unwrap();
            assert!(svg.contains("ringgate 50 %") && !svg.contains("NaN"));
            assert_eq!(svg.matches("<circle").count(), 3);
        }
        let flat = Lines {
            series: vec![("bare".to_owned(), vec![(1000.0, 0.0)])],
            ..Lines::default()
        };
        assert!(flat.draw().is_ok());
        assert!(Lines::default().draw().is_err());
    }
}
