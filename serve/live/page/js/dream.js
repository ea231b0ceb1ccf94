// Predicted and real rays: two fans at one step, and all steps as a strip.

import { clearCanvas, colour } from "./paint.js";
import { RAY_ANGLES } from "./road.js";

const radians = (degrees) => (degrees * Math.PI) / 180;

export function drawFan(canvas, step) {
  const [context, width, height] = clearCanvas(canvas);
  const reach = Math.min(height - 14, width / 2 / Math.sin(radians(48)));
  context.strokeStyle = colour("--line");
  for (const share of [0.5, 1]) {
    context.beginPath();
    context.arc(width / 2, height - 6, reach * share, -radians(90 + 45), -radians(90 - 45));
    context.stroke();
  }
  if (!step) return;
  const fan = (rays, stroke, lineWidth, shift) => {
    context.strokeStyle = stroke;
    context.fillStyle = stroke;
    context.lineWidth = lineWidth;
    rays.forEach((ray, i) => {
      if (!Number.isFinite(ray)) return;
      const angle = radians(RAY_ANGLES[i]), x = width / 2 - reach * ray * Math.sin(angle), y = height - 6 - reach * ray * Math.cos(angle);
      context.beginPath();
      context.moveTo(width / 2 + shift, height - 6);
      context.lineTo(x + shift, y);
      context.stroke();
      context.beginPath();
      context.arc(x + shift, y, lineWidth + 1, 0, 2 * Math.PI);
      context.fill();
    });
  };
  fan(step.real, colour("--real"), 2, 2.5);
  fan(step.dreamt, colour("--dreamt"), 2, -2.5);
}

export function drawStrip(canvas, steps, chosen) {
  const [context, width, height] = clearCanvas(canvas);
  const labelWidth = 46, top = 2, half = (height - 22) / 2, cell = (width - labelWidth) / steps.length;
  context.font = `11px ${getComputedStyle(document.body).fontFamily}`;
  context.textBaseline = "middle";
  [["dreamt", "predicted", "--dreamt", top], ["real", "real", "--real", top + half + 4]].forEach(([name, label, ink, y]) => {
    context.globalAlpha = 1;
    context.fillStyle = colour("--muted");
    context.fillText(label, 0, y + half / 2);
    context.fillStyle = colour(ink);
    steps.forEach((step, h) => {
      [...step[name]].reverse().forEach((ray, row) => { // the leftmost ray on top
        if (!Number.isFinite(ray)) return;
        context.globalAlpha = 0.06 + 0.94 * (1 - ray);
        context.fillRect(labelWidth + h * cell, y + (row * half) / 5, Math.max(1, cell - 1), half / 5 - 0.5);
      });
    });
  });
  context.globalAlpha = 1;
  context.strokeStyle = colour("--text");
  context.strokeRect(labelWidth + (chosen - 1) * cell - 0.5, top - 1, cell, 2 * half + 6);
  context.fillStyle = colour("--muted");
  context.fillText("now", labelWidth, height - 6);
  const end = `${steps.length} steps`;
  context.fillText(end, width - context.measureText(end).width, height - 6);
}

export function errorAt(steps, chosen) {
  const step = steps[chosen - 1];
  if (!step || !Number.isFinite(step.real[0])) return "The episode would end before this step.";
  const error = step.dreamt.reduce((sum, ray, i) => sum + Math.abs(ray - step.real[i]), 0) / step.dreamt.length;
  return `Mean error of the rays: ${(100 * error).toFixed(1)} % of their range. Predicted chance that the episode continues: ${(100 * step.continues).toFixed(0)} %.`;
}

const LATENT_PX = 128; // maximum height of all squares together

export function drawLatent(canvas, { groups, classes, values }) {
  const width = canvas.clientWidth;
  // Chooses the number of columns with the largest squares.
  let best = { size: 0 };
  for (let columns = 1; columns <= groups; columns += 1) {
    const rows = Math.ceil(groups / columns), gap = 6 * (columns - 1);
    const size = Math.min((width - gap) / (columns * classes), LATENT_PX / rows);
    if (size > best.size) best = { size, rows };
  }
  const { size, rows } = best, across = classes * size + 6, height = `${Math.ceil(rows * size)}px`;
  if (canvas.style.height !== height) canvas.style.height = height;
  const [context] = clearCanvas(canvas);
  for (let group = 0; group < groups; group += 1) {
    const x0 = Math.floor(group / rows) * across, y0 = (group % rows) * size;
    for (let k = 0; k < classes; k += 1) {
      const share = values[group * classes + k] / 255;
      context.globalAlpha = 1;
      context.fillStyle = `rgb(${colour("--cold")})`;
      context.fillRect(x0 + k * size, y0, size - 1, size - 1);
      context.globalAlpha = share;
      context.fillStyle = colour("--dreamt");
      context.fillRect(x0 + k * size, y0, size - 1, size - 1);
    }
  }
  context.globalAlpha = 1;
}
