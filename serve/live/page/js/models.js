// The policies to load or to race as a ghost, and the results of duels.

import { get, post } from "./api.js";

const STEPS_PER_S = 30;
const count = new Intl.NumberFormat("en");

function describe(model) {
  const parts = [`version ${model.version}`];
  if (model.aliases.length) parts.push(model.aliases.join(", "));
  if (model.lap_rate !== null) parts.push(`laps ${Math.round(100 * model.lap_rate)} %`);
  if (model.env_steps !== null) parts.push(`${count.format(model.env_steps)} steps`);
  return parts.join(" · ");
}

function option(value, text) {
  const made = document.createElement("option");
  made.value = value;
  made.textContent = text;
  return made;
}

function group(label, options) {
  const made = document.createElement("optgroup");
  made.label = label;
  made.append(...options);
  return made;
}

export class ModelList {
  constructor(select, ghosts) {
    this.select = select;
    this.ghosts = ghosts;
  }

  async refresh(run) {
    const { models, saves, files } = await get("list_models");
    const groups = () => [
      ...(models.length ? [group("Versions", models.map((model) => option(String(model.version), describe(model))))] : []),
      ...(saves.length ? [group(`Saves of ${run}`, saves.map(({ file, env_steps: steps }) =>
        option(file, `${count.format(steps)} steps${file.startsWith("best") ? " · best" : ""}`)))] : []),
      ...(files.length ? [group("Files", files.map((file) => option(file, file)))] : []),
    ];
    this.fill(this.select, [...(run ? [option("live", `newest of ${run}`)] : []), ...groups()], "no version yet");
    this.fill(this.ghosts, [option("", "no ghost"), ...groups()]);
  }

  fill(select, options, emptyText) {
    const chosen = select.value;
    select.replaceChildren(...(options.length ? options : [option("", emptyText)]));
    if ([...select.options].some((choice) => choice.value === chosen)) select.value = chosen;
  }

  load() { return post(`load_model?file=${encodeURIComponent(this.select.value)}`); }

  setGhost() { return post("ghost", { file: this.ghosts.value || null }); }
}

export class Duels {
  constructor(table) {
    this.table = table;
    this.drivers = new Map();
  }

  add(car, ghost) {
    const both = [car, ghost];
    for (const result of both) {
      const known = this.drivers.get(result.driver) ?? { races: 0, laps: 0, steps: 0, won: 0 };
      const other = both[result === car ? 1 : 0];
      known.races += 1;
      if (result.lap_time_steps) { known.laps += 1; known.steps += result.lap_time_steps; }
      const isQuicker = result.lap_time_steps && (!other.lap_time_steps || result.lap_time_steps < other.lap_time_steps);
      const isFarther = !result.lap_time_steps && !other.lap_time_steps && result.progress > other.progress;
      known.won += Number(Boolean(isQuicker || isFarther));
      this.drivers.set(result.driver, known);
    }
    this.draw();
  }

  draw() {
    this.table.hidden = !this.drivers.size;
    this.table.tBodies[0].replaceChildren(...[...this.drivers].map(([driver, { races, laps, steps, won }]) => {
      const row = document.createElement("tr");
      const mean = laps ? `${(steps / laps / STEPS_PER_S).toFixed(2)} s` : "–";
      for (const text of [driver, `${laps}/${races}`, mean, String(won)]) row.insertCell().textContent = text;
      return row;
    }));
  }
}
