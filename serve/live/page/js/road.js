// Draws the road, the cars, their rays, and the predictions of the world model.

import { canvasSize, colour } from "./paint.js";

export const RAY_ANGLES = [-45, -22.5, 0, 22.5, 45], RANGE_PX = 150;
const WIDTH = 800, HEIGHT = 600, CAR_LENGTH = 20, CAR_WIDTH = 11, TRAIL = 90;

const radians = (degrees) => (degrees * Math.PI) / 180;
export const ahead = (x, y, heading, distance) =>
  [x + distance * Math.cos(radians(heading)), y - distance * Math.sin(radians(heading))];

export class Road {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.ground = document.createElement("canvas");
    this.trail = [];
    this.frames = 0;
    this.isStale = true;
    new ResizeObserver(() => { this.isStale = true; }).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.isStale = true; });
  }

  set track(track) {
    this.road = track;
    this.trail = [];
    this.isStale = true;
  }

  clearTrail() { this.trail = []; }

  draw(frame, dream, chosenStep) {
    this.frames += 1;
    if (this.isStale) this.prepare();
    const { context } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.drawImage(this.ground, 0, 0);
    context.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    if (!frame || !this.road) return;
    this.drawTrail(frame);
    if (dream) this.drawDream(dream, chosenStep);
    this.drawRays(frame.car, frame.rays, colour("--real"), 1.5);
    if (frame.rival) this.circle(frame.rival.x, frame.rival.y, frame.rival.radius, colour("--rival"));
    if (frame.ghost) this.car(frame.ghost, colour("--ghost"), 0.75);
    this.car(frame.car, colour("--car"), 1);
  }

  prepare() {
    const [width, height] = canvasSize(this.canvas);
    this.scale = Math.min(width / WIDTH, height / HEIGHT);
    this.ground.width = width;
    this.ground.height = height;
    const context = this.ground.getContext("2d", { alpha: false });
    context.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    context.fillStyle = colour("--grass");
    context.fillRect(0, 0, width / this.scale, height / this.scale);
    this.isStale = false;
    if (!this.road) return;
    const { inner_px: inner, outer_px: outer, centre_px: centre } = this.road;
    const path = (points) => {
      context.moveTo(...points[0]);
      for (const point of points.slice(1)) context.lineTo(...point);
      context.closePath();
    };
    context.beginPath();
    path(outer);
    path(inner);
    context.fillStyle = colour("--road");
    context.fill("evenodd");
    context.lineJoin = "round";
    context.strokeStyle = colour("--edge");
    context.lineWidth = 2;
    context.stroke();
    context.beginPath();
    path(centre);
    context.setLineDash([10, 12]);
    context.strokeStyle = colour("--centre");
    context.lineWidth = 1.5;
    context.stroke();
    context.setLineDash([]);
    context.beginPath();
    context.moveTo(...inner[0]);
    context.lineTo(...outer[0]);
    context.strokeStyle = colour("--edge");
    context.lineWidth = 5;
    context.stroke();
    context.fillStyle = colour("--obstacle");
    context.globalAlpha = this.road.obstacles_are_solid ? 1 : 0.35;
    for (const [x, y] of this.road.obstacles_px) {
      context.beginPath();
      context.arc(x, y, this.road.obstacle_radius_px, 0, 2 * Math.PI);
      context.fill();
    }
    context.globalAlpha = 1;
  }

  drawTrail({ car }) {
    const last = this.trail[this.trail.length - 1];
    if (last && Math.hypot(car.x - last.x, car.y - last.y) > 40) this.trail = [];
    if (!last || Math.hypot(car.x - last.x, car.y - last.y) > 2) this.trail.push({ x: car.x, y: car.y });
    if (this.trail.length > TRAIL) this.trail.shift();
    const { context } = this;
    context.strokeStyle = colour("--car");
    context.lineWidth = 2.5;
    context.lineCap = "round";
    for (let i = 1; i < this.trail.length; i += 1) {
      context.globalAlpha = (0.5 * i) / this.trail.length;
      context.beginPath();
      context.moveTo(this.trail[i - 1].x, this.trail[i - 1].y);
      context.lineTo(this.trail[i].x, this.trail[i].y);
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  drawDream(steps, chosenStep) {
    const { context } = this;
    context.fillStyle = colour("--dreamt");
    steps.forEach((step, h) => {
      if (!Number.isFinite(step.x)) return;
      context.globalAlpha = Math.max(0.15, 0.9 - h / steps.length);
      step.dreamt.forEach((ray, i) => {
        if (ray > 0.98) return; // nothing in range, so there is no edge to draw
        const [x, y] = ahead(step.x, step.y, step.heading + RAY_ANGLES[i], ray * RANGE_PX);
        context.fillRect(x - 1.5, y - 1.5, 3, 3);
      });
    });
    context.globalAlpha = 1;
    const chosen = steps[chosenStep - 1];
    if (!chosen || !Number.isFinite(chosen.x)) return;
    this.drawRays(chosen, chosen.dreamt, colour("--dreamt"), 2);
    this.circle(chosen.x, chosen.y, 4, colour("--dreamt"));
  }

  drawRays({ x, y, heading }, rays, stroke, width) {
    const { context } = this;
    context.strokeStyle = stroke;
    context.lineWidth = width;
    context.globalAlpha = 0.75;
    context.beginPath();
    rays.forEach((ray, i) => {
      if (!Number.isFinite(ray)) return;
      context.moveTo(x, y);
      context.lineTo(...ahead(x, y, heading + RAY_ANGLES[i], ray * RANGE_PX));
    });
    context.stroke();
    context.globalAlpha = 1;
  }

  car({ x, y, heading }, fill, alpha) {
    const { context } = this;
    const size = Math.max(1, 0.75 / this.scale * devicePixelRatio); // large enough to see on a phone
    context.save();
    context.translate(x, y);
    context.rotate(-radians(heading));
    context.scale(size, size);
    context.globalAlpha = alpha;
    context.beginPath();
    context.moveTo(0.6 * CAR_LENGTH, 0);
    context.lineTo(-0.4 * CAR_LENGTH, CAR_WIDTH / 2);
    context.lineTo(-0.2 * CAR_LENGTH, 0);
    context.lineTo(-0.4 * CAR_LENGTH, -CAR_WIDTH / 2);
    context.closePath();
    context.fillStyle = fill;
    context.fill();
    context.lineWidth = 1;
    context.strokeStyle = colour("--card");
    context.stroke();
    context.restore();
  }

  circle(x, y, radius, fill) {
    this.context.fillStyle = fill;
    this.context.beginPath();
    this.context.arc(x, y, radius, 0, 2 * Math.PI);
    this.context.fill();
  }
}
