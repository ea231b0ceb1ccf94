// Frames arrive in bursts. They are drawn evenly, with a delay, by interpolation between two frames.

const DELAY_MS = 40, KEPT = 40, JUMP_PX = 40;

const mix = (a, b, share) => a + share * (b - a);

function mixPose(a, b, share) {
  if (!a || !b || Math.hypot(b.x - a.x, b.y - a.y) > JUMP_PX) return b;
  const turn = ((b.heading - a.heading + 540) % 360) - 180;
  return {
    x: mix(a.x, b.x, share), y: mix(a.y, b.y, share), heading: a.heading + share * turn,
    speed: mix(a.speed, b.speed, share), progress: b.progress < a.progress ? b.progress : mix(a.progress, b.progress, share),
  };
}

export class Playback {
  constructor() {
    this.ticks = [];
    this.offsetMs = null; // the browser's clock minus the server's, at the fastest delivery
  }

  push(tick, nowMs) {
    const offset = nowMs - tick.timeMs;
    // Follows clocks that drift apart, and forgets an unusually fast delivery slowly.
    this.offsetMs = this.offsetMs === null || Math.abs(offset - this.offsetMs) > 2000
      ? offset : Math.min(offset, this.offsetMs + 0.05);
    this.ticks.push(tick);
    if (this.ticks.length > KEPT) this.ticks.shift();
  }

  at(nowMs) {
    const { ticks } = this, last = ticks[ticks.length - 1];
    if (!last) return null;
    const timeMs = nowMs - this.offsetMs - DELAY_MS;
    let index = ticks.length - 1;
    while (index > 0 && ticks[index].timeMs > timeMs) index -= 1;
    const a = ticks[index], b = ticks[index + 1];
    if (!b) return a;
    const share = Math.min(1, Math.max(0, (timeMs - a.timeMs) / (b.timeMs - a.timeMs)));
    const car = mixPose(a.car, b.car, share), hasJumped = car === b.car;
    const rays = hasJumped ? b.rays : a.rays.map((ray, i) => mix(ray, b.rays[i], share));
    const rival = a.rival && b.rival ? { ...b.rival, ...pick(mixPose(a.rival, b.rival, share)) } : b.rival;
    return { ...b, car, rays, rival, ghost: mixPose(a.ghost, b.ghost, share) };
  }
}

const pick = ({ x, y }) => ({ x, y });
