"use strict";
// Everything shown comes from this server; text is set as text and never read as markup.

const MOST_LISTED = 500;
const COLOURS = ["#0072b2", "#c04d00", "#00785a", "#a8497f", "#7a5c00", "#4b3fa7"];
const DASHES = ["", "9 5", "2 5", "12 4 2 4"];
const WORST = "";
const OUTCOMES = {
  fell: "fell",
  stands: "stands",
  lost: "fell, but not once stored",
  wrong: "wrong without an attack",
  passed: "not run: fell earlier",
  outside: "the goal is not about it",
};

const at = (id) => document.getElementById(id);

function make(name, attributes, ...children) {
  const svg = ["svg", "g", "path", "line", "polygon", "text", "title", "desc", "circle"].includes(name);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const percent = (share) => (100 * share).toFixed(1) + " %";
const short = (value) => (value === 0 ? "0" : Math.abs(value) < 1e-4 ? value.toExponential(2) : String(+value.toPrecision(3)));
const number = (epsilon) => (epsilon === "inf" ? Infinity : epsilon);
const budgetName = (budget) => budget.norm + ":" + (budget.epsilon === "inf" ? "inf" : short(budget.epsilon));

function rate(found) {
  if (found.value === null) return [make("span", null, "–")];
  const range = ` (${(100 * found.lower).toFixed(1)}–${(100 * found.upper).toFixed(1)})`;
  return [percent(found.value), make("span", { class: "range" }, range)];
}

const badge = (outcome) => {
  const look = { fell: "fell", stands: "stands", lost: "lost", wrong: "wrong" }[outcome] || "other";
  return make("span", { class: "badge " + look }, OUTCOMES[outcome]);
};

/// What became of a sample: under one attack, or in the worst case over all at that budget or a smaller one.
function outcomeOf(run, attack, budget, place) {
  const sample = run.samples[place];
  if (!sample.in_scope) return "outside";
  if (!sample.standing) return "wrong";
  const rows = cellsOf(run, attack, budget).map((cell) => cell.rows[place]).filter((row) => row);
  if (rows.length === 0) return "passed";
  if (rows.some((row) => row.fell_stored)) return "fell";
  return rows.some((row) => row.fell) ? "lost" : "stands";
}

function cellsOf(run, attack, budget) {
  return run.cells.filter((cell) =>
    cell.norm === budget.norm &&
    (attack === WORST
      ? !cell.control && number(cell.epsilon) <= number(budget.epsilon)
      : cell.attack === attack && cell.epsilon === budget.epsilon));
}

/// The cell whose point is shown: of those in question that which took least and fell, or else the last that tried.
function shownCell(run, attack, budget, place) {
  const tried = cellsOf(run, attack, budget).filter((cell) => cell.rows[place]);
  const fallen = tried.filter((cell) => cell.rows[place].fell);
  const order = (cell) => [cell.rows[place].fell_stored ? 0 : 1, number(cell.epsilon)];
  fallen.sort((a, b) => order(a)[0] - order(b)[0] || order(a)[1] - order(b)[1]);
  return fallen[0] || tried[tried.length - 1] || null;
}

let runs = [];
let chosen = null; // { run, place, cell }
let values = null; // { clean, perturbed }

function options(select, entries, keep) {
  const before = keep ? select.value : null;
  select.replaceChildren(...entries.map(([value, text]) => make("option", { value }, text)));
  if (before !== null && entries.some(([value]) => value === before)) select.value = before;
}

const run = () => runs[Number(at("run").value)] || null;
const budget = () => run().threats[Number(at("budget").value)];

function showRuns() {
  at("about").textContent =
    `${runs.length} ${runs.length === 1 ? "run" : "runs"}: ${runs.map((one) => `${one.name} (${one.samples.length} samples of ${one.data})`).join(", ")}`;
  at("runs").tBodies[0].replaceChildren(...runs.map((one, place) => {
    const threat = one.headline === null ? null : one.threats[one.headline];
    const strong = one.evaluation_is_strong;
    return make("tr", null,
      make("th", { scope: "row" }, one.name),
      make("td", null, ...rate(one.clean_accuracy)),
      make("td", null, threat ? `${budgetName(threat)} ${one.unit}` : "–"),
      make("td", null, ...(threat ? rate(threat.robust) : ["–"])),
      make("td", null, ...(threat ? rate(threat.robust_stored) : ["–"])),
      make("td", null, make("span", { class: "badge " + (strong ? "stands" : "fell") }, strong ? "no sign of weakness" : "may be weak: no verdict")),
      make("td", null, make("a", { href: `/run/${place}/report.html`, target: "_blank", rel: "noopener" }, `report of ${one.name}`)));
  }));
  const norms = [...new Set(runs.flatMap((one) => one.threats.map((threat) => threat.norm)))];
  at("curves").replaceChildren(...norms.map(chart).filter((figure) => figure));
}

function chart(norm, place) {
  const [left, right, top, bottom] = [56, 620, 14, 250];
  const curves = runs.map((one, which) => ({
    which,
    name: one.name,
    points: [{ epsilon: 0, robust: one.unattacked },
      ...one.threats.filter((threat) => threat.norm === norm && threat.epsilon !== "inf" && threat.epsilon > 0)]
      .map((threat) => ({ epsilon: threat.epsilon, ...threat.robust })).filter((point) => point.value !== null),
  })).filter((curve) => curve.points.length > 1);
  if (curves.length === 0) return null;
  const greatest = Math.max(...curves.flatMap((curve) => curve.points.map((point) => point.epsilon))) || 1;
  const x = (epsilon) => left + (right - left) * epsilon / greatest;
  const y = (share) => bottom - (bottom - top) * share;
  const name = runs[curves[0].which].robust_name;
  const spoken = curves.map((curve) =>
    `${curve.name}: ${curve.points.map((point) => `${percent(point.value)} at ${short(point.epsilon)}`).join(", ")}`).join(". ");
  const rows = Math.ceil(curves.length / 2);
  const svg = make("svg", { viewBox: `0 0 640 ${306 + 22 * rows}`, role: "img", "aria-labelledby": `curve-${place} curve-text-${place}`, "font-size": "14", fill: "#1b1f24" },
    make("title", { id: `curve-${place}` }, `${name} over budget in ${norm}, worst case over attacks`),
    make("desc", { id: `curve-text-${place}` }, spoken));
  for (let fifth = 0; fifth <= 5; fifth += 1) {
    svg.append(make("line", { x1: left, x2: right, y1: y(fifth / 5), y2: y(fifth / 5), stroke: fifth ? "#e3e7eb" : "#57606a" }),
      make("text", { x: left - 8, y: y(fifth / 5) + 5, "text-anchor": "end" }, `${20 * fifth} %`));
  }
  let last = -Infinity;
  for (const epsilon of [...new Set([0, ...curves.flatMap((curve) => curve.points.map((point) => point.epsilon))])].sort((a, b) => a - b)) {
    svg.append(make("line", { x1: x(epsilon), x2: x(epsilon), y1: bottom, y2: bottom + 5, stroke: "#57606a" }));
    if (x(epsilon) - last >= 30) {
      last = x(epsilon);
      svg.append(make("text", { x: last, y: bottom + 20, "text-anchor": "middle" }, short(epsilon)));
    }
  }
  svg.append(make("text", { x: (left + right) / 2, y: bottom + 41, "text-anchor": "middle" }, `${norm} budget, in ${norm === "l0" ? "elements" : runs[curves[0].which].unit}`));
  for (const curve of curves) {
    const colour = COLOURS[curve.which % COLOURS.length];
    const band = [...curve.points.map((point) => [point.epsilon, point.upper]), ...curve.points.map((point) => [point.epsilon, point.lower]).reverse()];
    svg.append(make("polygon", { points: band.map(([a, b]) => `${x(a)},${y(b)}`).join(" "), fill: colour, opacity: "0.13" }));
  }
  curves.forEach((curve, order) => {
    const look = { stroke: COLOURS[curve.which % COLOURS.length], "stroke-width": "2.5", fill: "none", "stroke-dasharray": DASHES[curve.which % DASHES.length] };
    svg.append(make("path", { ...look, d: curve.points.map((point, step) => `${step ? "L" : "M"}${x(point.epsilon)} ${y(point.value)}`).join("") }));
    for (const point of curve.points) svg.append(make("circle", { cx: x(point.epsilon), cy: y(point.value), r: 3.5, fill: look.stroke }));
    const [a, b] = [left + 285 * (order % 2), 312 + 22 * Math.floor(order / 2)];
    svg.append(make("path", { ...look, d: `M${a} ${b}h36` }), make("text", { x: a + 44, y: b + 5 }, curve.name.slice(0, 30)));
  });
  return make("figure", null, svg, make("figcaption", null, `${name}, worst case over attacks, with 95 % intervals`));
}

/// Runs of the samples of the first, which alone can be compared.
const comparable = () => runs.filter((one) => one.data === runs[0].data && String(one.shape) === String(runs[0].shape));

function showDifferences() {
  const same = comparable();
  at("differences").hidden = same.length < 2;
  if (same.length < 2) return;
  const shared = same[0].threats.filter((threat) => same.every((one) => one.threats.some((other) => budgetName(other) === budgetName(threat))));
  if (at("difference-budget").options.length === 0) {
    options(at("difference-budget"), shared.map((threat, place) => [String(place), `${budgetName(threat)} ${same[0].unit}`]));
    const headline = same[0].headline === null ? "" : budgetName(same[0].threats[same[0].headline]);
    at("difference-budget").value = String(Math.max(0, shared.findIndex((threat) => budgetName(threat) === headline)));
  }
  const threat = shared[Number(at("difference-budget").value)];
  if (!threat) return;
  const places = same.map((one) => new Map(one.samples.map((sample, place) => [sample.index, place])));
  const differing = [];
  for (const sample of same[0].samples) {
    const found = same.map((one, which) => {
      const place = places[which].get(sample.index);
      return place === undefined || one.samples[place].label !== sample.label ? null : outcomeOf(one, WORST, threat, place);
    });
    const stands = (outcome) => outcome === "stands";
    if (found.every((outcome) => outcome) && found.some(stands) && !found.every(stands)) differing.push({ sample, found });
  }
  at("difference-count").textContent = `${differing.length} of ${same[0].samples.length} samples`;
  at("difference-table").tHead.replaceChildren(make("tr", null, make("th", { scope: "col" }, "Sample"), make("th", { scope: "col" }, "Truth"),
    ...same.map((one) => make("th", { scope: "col" }, one.name))));
  at("difference-table").tBodies[0].replaceChildren(...differing.slice(0, MOST_LISTED).map(({ sample, found }) => {
    const cells = found.map((outcome, which) => {
      const show = make("button", { type: "button", "aria-label": `Show sample ${sample.index} in ${same[which].name}` }, "show");
      show.addEventListener("click", () => goTo(runs.indexOf(same[which]), sample.index, threat));
      return make("td", null, badge(outcome), " ", show);
    });
    return make("tr", null, make("th", { scope: "row" }, `#${sample.index}`), make("td", null, sample.label), ...cells);
  }));
}

function goTo(which, index, threat) {
  at("run").value = String(which);
  showFilters();
  at("class").value = at("outcome").value = at("attack").value = "";
  at("kept").checked = false;
  at("budget").value = String(run().threats.findIndex((other) => budgetName(other) === budgetName(threat)));
  showList(index);
  at("samples").scrollIntoView();
  at("samples").focus({ preventScroll: true });
}

/// Fills the filters for the chosen run, and keeps what is still there.
function showFilters() {
  const one = run();
  options(at("class"), [["", "every class"], ...[...new Set(one.samples.map((sample) => sample.label))].sort().map((label) => [label, label])], true);
  options(at("attack"), [[WORST, "worst case over attacks"], ...[...new Set(one.cells.map((cell) => cell.attack))].map((name) => [name, name])], true);
  const former = at("budget").selectedOptions[0] ? at("budget").selectedOptions[0].textContent : null;
  options(at("budget"), one.threats.map((threat, place) => [String(place), `${budgetName(threat)} ${one.unit}`]));
  const again = one.threats.findIndex((threat) => `${budgetName(threat)} ${one.unit}` === former);
  at("budget").value = String(again >= 0 ? again : one.headline || 0);
  options(at("outcome"), [["", "every outcome"], ...Object.entries(OUTCOMES)], true);
  at("kept-choice").hidden = !one.samples.some((sample) => sample.kept);
}

function showList(wanted) {
  const one = run();
  const [kind, attack, outcome] = [at("class").value, at("attack").value, at("outcome").value];
  const onlyKept = at("kept").checked && !at("kept-choice").hidden;
  const found = [];
  one.samples.forEach((sample, place) => {
    if ((kind && sample.label !== kind) || (onlyKept && !sample.kept)) return;
    const became = outcomeOf(one, attack, budget(), place);
    if (!outcome || became === outcome) found.push({ sample, place, became });
  });
  const listed = found.slice(0, MOST_LISTED);
  at("count").textContent = `${found.length} of ${one.samples.length} samples` +
    (listed.length < found.length ? `; the first ${listed.length} are listed` : "");
  const before = wanted === undefined ? chosen && chosen.index : wanted;
  const kept = listed.find(({ sample }) => sample.index === before) || found.find(({ sample }) => sample.index === before && wanted !== undefined) || listed[0];
  at("items").replaceChildren(...listed.map(({ sample, place, became }) => {
    const radio = make("input", { type: "radio", name: "sample", value: String(place) });
    radio.checked = kept !== undefined && kept.place === place;
    radio.addEventListener("change", () => choose(place));
    return make("label", null, radio, make("span", { class: "text" }, `#${sample.index} ${sample.label}`), badge(became));
  }));
  if (kept) choose(kept.place);
  else nothing();
}

function nothing() {
  chosen = values = null;
  at("detail-title").textContent = "No sample fits the filter";
  at("verdict").textContent = at("elsewhere").textContent = at("no-picture").textContent = "";
  at("viewer").hidden = true;
  at("attacks").tBodies[0].replaceChildren();
}

function choose(place, cell) {
  const one = run();
  const sample = one.samples[place];
  const shown = cell || shownCell(one, at("attack").value, budget(), place);
  chosen = { run: one, place, index: sample.index, cell: shown };
  at("detail-title").textContent = `Sample ${sample.index}` + (sample.patient ? ` (${sample.patient})` : "");
  const row = shown && shown.rows[place];
  at("verdict").replaceChildren(`Truth: ${sample.label}. Clean decision: ${sample.decision}. `,
    row ? `After ${shown.attack} at ${budgetName(shown)}: ${row.decision === null ? "not finite" : row.decision}. ` : "",
    badge(outcomeOf(one, at("attack").value, budget(), place)));
  const others = comparable().includes(one) ? comparable().filter((other) => other !== one) : [];
  const same = others.map((other) => {
    const where = other.samples.findIndex((twin) => twin.index === sample.index && twin.label === sample.label);
    const there = other.threats.some((threat) => budgetName(threat) === budgetName(budget()));
    return where < 0 || !there ? null : `${other.name}: ${OUTCOMES[outcomeOf(other, WORST, budget(), where)]}`;
  }).filter((text) => text);
  at("elsewhere").textContent = same.length ? `Elsewhere at ${budgetName(budget())}, worst case: ${same.join("; ")}.` : "";
  showAttacks(one, place, shown);
  fetchValues();
}

function showAttacks(one, place, shown) {
  const rows = one.cells.filter((cell) => cell.rows[place]).map((cell) => {
    const row = cell.rows[place];
    const pick = make("button", { type: "button", "aria-pressed": String(cell === shown) }, cell.attack + (cell.control ? " (control)" : ""));
    pick.addEventListener("click", () => {
      choose(place, cell);
      const again = at("attacks").querySelector("[aria-pressed=true]");
      if (again) again.focus();
    });
    const became = row.fell_stored ? "fell" : row.fell ? "lost" : "stands";
    return make("tr", cell === shown ? { class: "chosen" } : null,
      make("th", { scope: "row" }, pick),
      make("td", null, budgetName(cell)),
      make("td", null, badge(became)),
      make("td", null, row.decision === null ? "not finite" : row.decision),
      make("td", null, row.distance === null ? "–" : `${short(row.distance)} ${cell.norm === "l0" ? "elements" : one.unit}`),
      make("td", null, String(row.queries)),
      make("td", null, String(row.gradient_queries)));
  });
  at("attacks").tBodies[0].replaceChildren(...rows);
}

async function read(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error((await answer.text()).trim());
  const bytes = await answer.arrayBuffer();
  const view = new DataView(bytes);
  return Float32Array.from({ length: bytes.byteLength / 4 }, (_, place) => view.getFloat32(4 * place, true));
}

async function fetchValues() {
  const wanted = chosen;
  const { run: one, place, cell } = wanted;
  const sample = one.samples[place];
  const tell = (text) => {
    at("viewer").hidden = true;
    at("no-picture").textContent = text;
  };
  if (!sample.kept) {
    values = null;
    return tell("The values of this sample are not kept in the results. An audit keeps some with --keep-samples.");
  }
  const which = runs.indexOf(one);
  try {
    const clean = await read(`/run/${which}/clean/${sample.index}`);
    const perturbed = cell ? await read(`/run/${which}/cell/${one.cells.indexOf(cell)}/${sample.index}`) : clean;
    if (chosen !== wanted) return undefined;
    const broken = perturbed.some((value) => !Number.isFinite(value));
    values = { clean, perturbed: broken ? clean : perturbed };
    at("no-picture").textContent = broken ? "Model or attack could not compute on this sample; the clean one is shown."
      : cell ? "" : "No attack was run on this sample; the clean one is shown.";
    prepare(one);
  } catch (problem) {
    if (chosen === wanted) tell(`The values cannot be shown: ${problem.message}`);
  }
  return undefined;
}

/// How a sample of this shape is looked at.
function layout(shape) {
  if (shape.length <= 2) return { kind: "signal", channels: shape.length === 2 ? shape[0] : 1, length: shape[shape.length - 1] };
  const [height, width] = shape.slice(-2);
  if (shape.length === 3 && (shape[0] === 1 || shape[0] === 3)) return { kind: "image", planes: shape[0], height, width, slices: 1 };
  // Volumes by slice, of several channels one after the other; other stacks of planes by plane.
  return { kind: "image", planes: 1, height, width, slices: shape.slice(0, -2).reduce((a, b) => a * b, 1) };
}

function prepare(one) {
  const form = layout(one.shape);
  at("viewer").hidden = false;
  const range = one.upper - one.lower;
  let greatest = 0;
  values.clean.forEach((value, place) => { greatest = Math.max(greatest, Math.abs(values.perturbed[place] - value) / range); });
  // The greatest of 1, 2, 5, 10, ... that keeps the change within half the range.
  let fit = 1;
  for (let power = 1; power <= 1e5; power *= 10) for (const digit of [1, 2, 5]) if (greatest > 0 && digit * power * greatest <= 0.5 + 1e-6) fit = digit * power;
  const factors = [...new Set([fit, 1, 2, 5, 10, 20, 50, 100])];
  options(at("amplification"), factors.map((factor, place) => [String(factor), place === 0 ? `${factor} (fits)` : String(factor)]));
  at("amplification").value = String(fit);
  at("slice-control").hidden = !(form.slices > 1);
  if (form.slices > 1 && Number(at("slice").max) !== form.slices - 1) {
    at("slice").max = String(form.slices - 1);
    at("slice").value = String(Math.floor(form.slices / 2));
  }
  const pictures = at("pictures");
  pictures.className = form.kind === "signal" ? "pictures traces" : "pictures";
  const names = [["picture", "From clean to adversarial"], ["difference", "Difference"]];
  if (!at("picture") || at("picture").dataset.form !== JSON.stringify(form)) {
    pictures.replaceChildren(...names.map(([id, title]) => {
      const canvas = make("canvas", { id, role: "img", "data-form": JSON.stringify(form) });
      [canvas.width, canvas.height] = form.kind === "signal" ? [1200, Math.min(1400, 60 + 150 * form.channels)] : [form.width, form.height];
      if (form.kind === "signal" || Math.max(form.width, form.height) >= 128) canvas.className = "smooth";
      return make("figure", null, canvas, make("figcaption", { id: id + "-caption" }, title));
    }));
  }
  draw();
}

function draw() {
  if (!chosen || !values) return;
  const { run: one, cell } = chosen;
  const form = layout(one.shape);
  const share = Number(at("blend").value) / 100;
  const factor = Number(at("amplification").value);
  at("blend-value").textContent = share === 0 ? "clean" : share === 1 ? "adversarial" : `${Math.round(100 * share)} % of the change`;
  const slice = Number(at("slice").value);
  at("slice-value").textContent = form.slices > 1 ? `${slice + 1} of ${form.slices}` : "";
  const attack = cell ? `${cell.attack} at ${budgetName(cell)}` : "no attack";
  at("picture").setAttribute("aria-label", `Sample ${chosen.index}, ${at("blend-value").textContent}, ${attack}`);
  at("difference").setAttribute("aria-label", `Change of sample ${chosen.index} by ${attack}, times ${factor}`);
  at("picture-caption").textContent = `${at("blend-value").textContent}; ${attack}; shown from ${short(one.lower)} to ${short(one.upper)} ${one.unit}`;
  at("difference-caption").textContent = `the whole change × ${factor}` + (form.kind === "image" ? " on mid-grey" : "");
  if (form.kind === "signal") drawSignal(one, form, share, factor);
  else drawImage(one, form, share, factor, form.slices > 1 ? slice : 0);
}

function drawImage(one, form, share, factor, slice) {
  const { planes, height, width } = form;
  const size = height * width;
  const level = (part) => Math.max(0, Math.min(255, Math.round(255 * part)));
  const paint = (id, of) => {
    const image = new ImageData(width, height);
    for (let pixel = 0; pixel < size; pixel += 1) {
      for (let colour = 0; colour < 3; colour += 1) {
        image.data[4 * pixel + colour] = level(of((slice + (planes === 3 ? colour : 0)) * size + pixel));
      }
      image.data[4 * pixel + 3] = 255;
    }
    at(id).getContext("2d").putImageData(image, 0, 0);
  };
  const range = one.upper - one.lower;
  const change = (place) => values.perturbed[place] - values.clean[place];
  paint("picture", (place) => (values.clean[place] + share * change(place) - one.lower) / range);
  paint("difference", (place) => 0.5 + factor * change(place) / range);
}

function drawSignal(one, form, share, factor) {
  const { channels, length } = form;
  const trace = (id, series) => {
    const canvas = at(id);
    const pen = canvas.getContext("2d");
    const [left, right] = [70, canvas.width - 10];
    pen.fillStyle = "#ffffff";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    const room = (canvas.height - 40) / channels;
    pen.font = "20px sans-serif";
    for (let channel = 0; channel < channels; channel += 1) {
      const rows = series.map(({ of }) => Float64Array.from({ length }, (_, step) => of(channel * length + step)));
      const all = rows.flatMap((row) => [...row]);
      let [least, most] = [Math.min(...all), Math.max(...all)];
      if (least === most) [least, most] = [least - 1, most + 1];
      const y = (value) => 10 + room * channel + (room - 20) * (most - value) / (most - least);
      const x = (step) => left + (right - left) * step / Math.max(1, length - 1);
      pen.fillStyle = "#57606a";
      pen.textAlign = "right";
      pen.fillText(short(most), left - 8, y(most) + 14);
      pen.fillText(short(least), left - 8, y(least));
      series.forEach(({ colour, width, dash }, which) => {
        pen.strokeStyle = colour;
        pen.lineWidth = width;
        pen.setLineDash(dash);
        pen.beginPath();
        rows[which].forEach((value, step) => pen.lineTo(x(step), y(value)));
        pen.stroke();
      });
    }
    pen.fillStyle = "#1b1f24";
    pen.textAlign = "left";
    pen.fillText(`${one.unit} over ${length} steps` + (series.length > 1 ? "; dotted grey: clean, blue: as the slider says" : ""), left, canvas.height - 10);
  };
  const change = (place) => values.perturbed[place] - values.clean[place];
  trace("picture", [
    { of: (place) => values.clean[place] + share * change(place), colour: "#0072b2", width: 3, dash: [] },
    { of: (place) => values.clean[place], colour: "#57606a", width: 2.5, dash: [3, 5] },
  ]);
  trace("difference", [{ of: (place) => factor * change(place), colour: "#c04d00", width: 2.5, dash: [] }]);
}

async function start() {
  try {
    const answer = await fetch("/runs.json");
    if (!answer.ok) throw new Error((await answer.text()).trim());
    runs = await answer.json();
  } catch (problem) {
    at("about").textContent = `The results cannot be read: ${problem.message}`;
    return;
  }
  options(at("run"), runs.map((one, place) => [String(place), one.name]));
  showRuns();
  showFilters();
  at("kept").checked = !at("kept-choice").hidden;
  showDifferences();
  showList();
  at("run").addEventListener("change", () => { showFilters(); showList(); });
  for (const id of ["class", "attack", "budget", "outcome", "kept"]) at(id).addEventListener("change", () => showList());
  at("difference-budget").addEventListener("change", showDifferences);
  for (const id of ["blend", "slice", "amplification"]) at(id).addEventListener("input", draw);
  at("filters").addEventListener("submit", (event) => event.preventDefault());
}

start();
