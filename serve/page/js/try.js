// Sliders for what a policy sees, and what it then does.

import { post } from "./api.js";

const NAMES = ["Ray 45° right", "Ray 22.5° right", "Ray ahead", "Ray 22.5° left", "Ray 45° left", "Speed"];
const AT_FIRST = [0.5, 0.7, 1, 0.7, 0.5, 0.6];

export class TryIt {
  constructor(place, outputs) {
    this.outputs = outputs;
    this.sliders = NAMES.map((name, i) => {
      const label = document.createElement("label"), value = document.createElement("output"), input = document.createElement("input");
      label.className = "slider";
      label.append(Object.assign(document.createElement("span"), { textContent: name }), value, input);
      Object.assign(input, { type: "range", min: 0, max: 1, step: 0.01, value: AT_FIRST[i] });
      input.setAttribute("aria-label", name);
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

  // One question at a time; the last position of the sliders is always asked about.
  async ask() {
    this.show();
    this.isDue = true;
    if (this.isAsking) return;
    this.isAsking = true;
    while (this.isDue) {
      this.isDue = false;
      try {
        const answer = await post("/try", { observation: this.sliders.map(({ input }) => Number(input.value)) });
        for (const name of ["steering", "throttle"]) {
          const [meter, output] = this.outputs[name];
          meter.value = answer[name];
          output.textContent = answer[name].toFixed(2);
        }
      } catch { /* no policy yet: asked again when there is one */ }
      await new Promise((resolve) => setTimeout(resolve, 60));
    }
    this.isAsking = false;
  }
}
