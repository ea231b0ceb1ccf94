// The newest rollout of the policy server, and the commands that its phase allows.

import { get, post } from "./api.js";

const EVERY_MS = 2000;
const ENDED = ["Healthy", "Degraded"];
const count = new Intl.NumberFormat("en");

const COMMANDS = {
  pause: (phase) => phase === "Progressing",
  resume: (phase) => phase === "Paused" || phase === "Inconclusive",
  promote: (phase) => !ENDED.includes(phase),
  abort: (phase) => !ENDED.includes(phase),
};

function latency({ timed, latency_s: sum }) {
  return timed ? `${((1000 * sum) / timed).toFixed(2)} ms` : "–";
}

export class Rollout {
  constructor(card, isLost, showError) {
    this.card = card;
    this.isLost = isLost;
    this.part = (name) => card.querySelector(`[data-rollout="${name}"]`);
    this.showError = showError;
    for (const button of card.querySelectorAll("button")) {
      button.addEventListener("click", () => this.command(button.dataset.command));
    }
    this.isAsking = false;
    setInterval(() => this.refresh(), EVERY_MS);
  }

  async refresh() {
    if (document.hidden || this.isAsking || this.isLost()) return;
    this.isAsking = true;
    try {
      this.show((await get("v1/rollout")).rollout);
    } catch { /* the stream tells of a lost connection */ } finally { this.isAsking = false; }
  }

  async command(name) {
    if ((name === "promote" || name === "abort") && !confirm(`${name === "promote" ? "Promote" : "Abort"} this rollout?`)) return;
    try {
      await post("v1/rollout/command", { command: name, reason: `${name} on the live page` });
      this.showError("");
    } catch (error) { this.showError(error.message); }
    await this.refresh();
  }

  write(name, text) {
    const place = this.part(name);
    if (place.textContent !== text) place.textContent = text;
  }

  show(rollout) {
    this.card.hidden = !rollout;
    if (!rollout) return;
    const { phase, step, steps, weight, shadow_weight: shadow, step_text: stepText, message, counts } = rollout;
    const isOver = ENDED.includes(phase);
    this.write("versions", `Version ${rollout.stable} to ${rollout.candidate}`);
    this.write("phase", phase);
    this.part("phase").className = `chip ${phase === "Degraded" || phase === "Inconclusive" ? "off" : "on"}`;
    this.write("step", isOver ? "" : `Step ${Math.min(step + 1, steps)} of ${steps}${stepText ? `: ${stepText}` : ""}`);
    this.write("weight", `${weight} % of the sessions${shadow ? `, ${shadow} % shadowed` : ""}`);
    this.write("reason", message);
    for (const button of this.card.querySelectorAll("button")) button.hidden = !COMMANDS[button.dataset.command](phase);
    this.part("counts").tBodies[0].replaceChildren(...(counts ? [[rollout.stable, counts.stable], [rollout.candidate, counts.candidate]] : [])
      .map(([version, arm]) => {
        const row = document.createElement("tr");
        const faults = arm.errors + arm.non_finite + arm.late;
        for (const text of [`${version}`, count.format(arm.answers), count.format(faults), count.format(arm.fallbacks), latency(arm)]) {
          row.insertCell().textContent = text;
        }
        return row;
      }));
    this.write("laps", `${count.format(rollout.outcomes ?? 0)} laps reported`);
  }
}
