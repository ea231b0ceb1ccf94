// Sliders for an observation, and the policy's action.

import { post } from "./api.js";

const NAMES = ["Ray 45° right", "Ray 22.5° right", "Ray ahead", "Ray 22.5° left", "Ray 45° left", "Speed"];
const INITIAL = [0.5, 0.7, 1, 0.7, 0.5, 0.6];

export class TryIt {
  constructor(place, outputs) {
    this.outputs = outputs;
    this.sliders = NAMES.map((name, i) => {
      const label = document.createElement("label"), value = document.createElement("output"), input = document.createElement("input");
      label.className = "slider";
      label.append(Object.assign(document.createElement("span"), { textContent: name }), value, input);
      Object.assign(input, { type: "range", min: 0, max: 1, step: 0.01, value: INITIAL[i] });
      input.id = label.htmlFor = `try-${i}`;
      input.addEventListener("input", () => this.ask());
      place.append(label);
      return { input, value };
    });
    this.show();
  }

  set(observation) {
    observation.forEach((value, i) => { this.sliders[i].input.value = value; });
    this.ask();
  }

  show() { for (const { input, value } of this.sliders) value.textContent = Number(input.value).toFixed(2); }

  // Sends one request at a time; the last position of the sliders is always sent.
  async ask() {
    this.show();
    this.isDue = true;
    if (this.isAsking) return;
    this.isAsking = true;
    while (this.isDue) {
      this.isDue = false;
      try {
        const answer = await post("try", { observation: this.sliders.map(({ input }) => Number(input.value)) });
        for (const name of ["steering", "throttle"]) {
          balance(this.outputs[name], answer[name], name);
        }
      } catch { /* no policy yet: the page asks again when there is one */ }
      await new Promise((resolve) => setTimeout(resolve, 60));
    }
    this.isAsking = false;
  }
}

// Draws a bar from the middle; steering to the left points to the left.
function balance(place, value, name) {
  const bar = place.querySelector("i"), size = Math.abs(value), isRight = name === "throttle" ? value >= 0 : value < 0;
  bar.style.setProperty("--share", size);
  // In CSS the position of a background is relative to the space that it leaves free.
  bar.style.setProperty("--from", `${(100 * (isRight ? 0.5 : 0.5 - size / 2)) / (1 - size / 2)}%`);
  const word = name === "throttle" ? (value >= 0 ? "go" : "brake") : isRight ? "right" : "left";
  place.setAttribute("aria-valuenow", value.toFixed(2));
  place.setAttribute("aria-valuetext", `${word} ${size.toFixed(2)}`);
  place.querySelector("output").textContent = `${word} ${size.toFixed(2)}`;
}
