// Shows the scene of another environment than the race, which the server sends as pictures.

const ONLY_RACE = "Only in the race: this page shows another environment.";

export class Scene {
  constructor(canvas, write) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.write = write;
    this.name = null; // of the environment; null while the page shows the race
    this.frames = 0;
  }

  get isShown() { return this.name !== null; }

  show({ environment, problem }) {
    this.name = environment;
    document.body.dataset.shows = "scene";
    this.canvas.setAttribute("aria-label", `The environment ${environment}`);
    document.getElementById("stage-title").textContent = environment;
    const manual = document.getElementById("manual");
    manual.title = ONLY_RACE;
    manual.disabled = true;
    this.write("environment", environment.split(":").at(-1)); // without the module that registers it
    this.write("scene-problem", problem ? `There are no pictures of this environment: ${problem}` : "");
  }

  async draw(frame) {
    this.write("scene-steps", String(frame.steps));
    this.write("scene-reward", frame.reward.toFixed(2));
    if (this.isDecoding) return; // a slow browser skips pictures instead of falling behind
    this.isDecoding = true;
    try {
      const picture = await createImageBitmap(new Blob([frame.jpeg], { type: "image/jpeg" }));
      const { canvas, context } = this;
      if (canvas.width !== picture.width || canvas.height !== picture.height) {
        canvas.width = picture.width;
        canvas.height = picture.height;
      }
      context.drawImage(picture, 0, 0);
      picture.close();
      this.frames += 1;
    } finally { this.isDecoding = false; }
  }
}
