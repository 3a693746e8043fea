//! Plots as SVG (1.1), one below the other: axes from zero, lines with points, and a legend where there are several lines.

use super::report::Plot;
use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const TICKS: u32 = 5;
/// Told apart by the colour-blind too (Okabe and Ito).
const COLORS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];

/// All plots in one picture.
pub fn draw(plots: &[Plot]) -> String {
    let height = HEIGHT * plots.len().max(1) as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (n, plot) in plots.iter().enumerate() {
        let _ = writeln!(svg, "<g transform=\"translate(0 {})\">", HEIGHT * n as f64);
        one(&mut svg, plot);
        svg += "</g>\n";
    }
    svg + "</svg>\n"
}

fn one(svg: &mut String, plot: &Plot) {
    let points = || plot.lines.iter().flat_map(|line| &line.points);
    let most = |axis: usize| points().map(|point| point[axis]).filter(|v| v.is_finite()).fold(0.0, f64::max);
    let (x_end, y_end) = (round_up(most(0)), round_up(most(1)));
    let (wide, high) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let x = |value: f64| LEFT + value / x_end * wide;
    let y = |value: f64| TOP + high - value / y_end * high;
    text(svg, WIDTH / 2.0, 22.0, "middle", &plot.title);
    for tick in 0..=TICKS {
        let share = f64::from(tick) / f64::from(TICKS);
        let (at_x, at_y) = (x(x_end * share), y(y_end * share));
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {at_y:.1}H{:.1}M{at_x:.1} {TOP}V{:.1}\" stroke=\"#ddd\" fill=\"none\"/>",
            LEFT + wide,
            TOP + high
        );
        text(svg, at_x, TOP + high + 18.0, "middle", &number(x_end * share));
        text(svg, LEFT - 6.0, at_y + 4.0, "end", &number(y_end * share));
    }
    text(svg, LEFT + wide / 2.0, HEIGHT - 10.0, "middle", &plot.x);
    text(svg, LEFT, TOP - 8.0, "middle", &plot.y);
    for (n, line) in plot.lines.iter().enumerate() {
        let color = COLORS[n % COLORS.len()];
        let drawn: Vec<String> = (line.points.iter())
            .filter(|point| point.iter().all(|value| value.is_finite()))
            .map(|point| format!("{:.1},{:.1}", x(point[0]), y(point[1])))
            .collect();
        let all = drawn.join(" ");
        let _ = writeln!(
            svg,
            "<polyline points=\"{all}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\"/>"
        );
        // More points than that are a line anyway.
        let few = if drawn.len() <= 60 { &drawn[..] } else { &[] };
        for (at_x, at_y) in few.iter().filter_map(|point| point.split_once(',')) {
            let _ = writeln!(svg, "<circle cx=\"{at_x}\" cy=\"{at_y}\" r=\"2.5\" fill=\"{color}\"/>");
        }
        if plot.lines.len() > 1 {
            let at = TOP + 14.0 * (n + 1) as f64;
            let _ = writeln!(
                svg,
                "<rect x=\"{}\" y=\"{}\" width=\"10\" height=\"10\" fill=\"{color}\"/>",
                LEFT + 8.0,
                at - 9.0
            );
            text(svg, LEFT + 24.0, at, "start", &line.name);
        }
    }
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

/// The least of 1, 2, 2.5 and 5 times a power of ten that is not below `value`; 1 for nothing.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0];
    // What is a step but for rounding is that step.
    steps.into_iter().map(|step| step * power).find(|end| *end >= value * 0.999_999).unwrap_or(10.0 * power)
}

fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::report::Line;
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        let cases =
            [(0.0, 1.0), (0.07, 0.1), (1.0, 1.0), (1.2, 2.0), (2.3, 2.5), (31.0, 50.0), (99.0, 100.0)];
        for (value, end) in cases {
            assert!((round_up(value) - end).abs() < 1e-9, "{value} gives {}", round_up(value));
        }
    }

    #[test]
    fn points_lie_where_they_belong() {
        let points = vec![[0.0, 0.0], [5.0, 10.0], [10.0, f64::NAN]];
        let line = |name: &str| Line { name: name.to_owned(), points: points.clone() };
        let plot = Plot {
            title: "a < b & c".to_owned(),
            x: "s".to_owned(),
            y: "Mpps".to_owned(),
            lines: vec![line("one"), line("two")],
        };
        let svg = draw(&[plot]);
        // From 70 to 700 across, from 270 up to 40.
        assert!(svg.contains("<polyline points=\"70.0,270.0 385.0,40.0\""), "{svg}");
        assert!(svg.contains("a &lt; b &amp; c") && svg.contains(">two</text>") && !svg.contains("NaN"));
        assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn no_plots_are_a_picture_too() {
        assert!(draw(&[]).ends_with("</svg>\n"));
    }
}
