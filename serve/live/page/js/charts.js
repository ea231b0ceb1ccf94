// Charts of reward and loss: of the followed run, else of the episodes on this page.

import { colour } from "./paint.js";

const MAX_POINTS = 1500, HEIGHT_PX = 196;
const REWARD = [["episode/reward", "reward, mean of 100", "--accent"], ["evaluation/lap_rate", "lap rate, unseen tracks", "--good", "share"],
  ["evaluation/success_rate", "success, evaluation", "--good", "share"], ["evaluation/episode_reward", "reward, evaluation", "--real"]];
const LOSSES = [["model/loss", "world model", "--dreamt"], ["critic/loss", "critic", "--warn"]];
const thousands = (steps) => (steps >= 1000 ? `${Number((steps / 1000).toFixed(1))}k` : `${steps}`);

export class Charts {
  constructor(reward, loss) {
    this.places = { reward, loss };
    this.rows = [];
    this.episodes = [];
    this.plots = {};
    this.isStale = true;
    new ResizeObserver(() => this.resize()).observe(reward);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.drop(); this.isStale = true; });
  }

  addRows(rows, isAnew) {
    this.rows = isAnew ? [...rows] : [...this.rows, ...rows];
    if (this.rows.length > MAX_POINTS) this.rows = this.rows.filter((row, i) => i % 2 || "evaluation/lap_rate" in row || "evaluation/episode_reward" in row);
    this.isStale = true;
  }

  setEpisodes(rewards, first) {
    this.episodes = rewards.map((reward, i) => ({ env_steps: first + i + 1, reward }));
    this.isStale = true;
  }

  last(name) {
    for (let i = this.rows.length - 1; i >= 0; i -= 1) if (name in this.rows[i]) return this.rows[i][name];
    return null;
  }

  draw() {
    if (!this.isStale) return;
    this.isStale = false;
    const ofRun = this.rows.some((row) => "episode/reward" in row);
    if (ofRun) this.plot("reward", this.rows, REWARD, "env steps");
    else this.plot("reward", this.episodes, [["reward", "on this page", "--accent"]], "episodes on this page");
    this.plot("loss", this.rows, LOSSES, "env steps", true);
  }

  plot(name, rows, series, axis, isLog = false) {
    const shown = series.filter(([key]) => rows.some((row) => key in row)), place = this.places[name];
    if (!shown.length) {
      this.drop(name);
      place.classList.add("empty");
      place.textContent = name === "loss" ? "No run is followed, or it has not logged a loss yet." : "No episode has ended yet.";
      return;
    }
    place.classList.remove("empty");
    const data = [rows.map((row) => row.env_steps), ...shown.map(([key]) => rows.map((row) => (isLog && !(row[key] > 0) ? null : row[key] ?? null)))];
    const shape = shown.map(([key]) => key).join() + axis;
    if (this.plots[name]?.shape !== shape) {
      this.drop(name);
      place.textContent = "";
      this.plots[name] = { shape, chart: new uPlot(this.options(place, shown, axis, isLog), data, place) };
      const canvas = place.querySelector("canvas");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", shown.map(([, label]) => label).join(" and "));
    } else this.plots[name].chart.setData(data);
  }

  options(place, shown, axis, isLog) {
    const ink = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1, size: 4 }, font: "11px system-ui, sans-serif" };
    const hasShare = shown.some(([, , , scale]) => scale === "share");
    const axes = [{ ...ink, values: (_, ticks) => ticks.map(thousands), size: 26, gap: 3, space: 60 }, { ...ink, size: 42, gap: 3 }];
    if (hasShare) axes.push({ ...ink, scale: "share", side: 1, grid: { show: false }, values: (_, ticks) => ticks.map((tick) => `${Math.round(100 * tick)}%`), size: 40, gap: 3 });
    return {
      width: place.clientWidth, height: HEIGHT_PX, axes, cursor: { y: false },
      scales: { x: { time: false }, y: { distr: isLog ? 3 : 1 }, share: { range: [0, 1] } }, legend: { live: false },
      series: [{ label: axis }, ...shown.map(([, label, stroke, scale]) => ({
        label, scale: scale ?? "y", stroke: colour(stroke), width: 1.75, spanGaps: true, points: { show: scale === "share" ? undefined : false, size: 5 },
      }))],
    };
  }

  drop(name) {
    for (const plot of name ? [name] : Object.keys(this.plots)) {
      this.plots[plot]?.chart.destroy();
      delete this.plots[plot];
    }
  }

  resize() {
    for (const [name, { chart }] of Object.entries(this.plots)) {
      const place = this.places[name];
      if (place.clientWidth) chart.setSize({ width: place.clientWidth, height: HEIGHT_PX });
    }
  }
}
