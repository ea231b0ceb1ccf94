// What a person asks of the car: keys (several at once), touch buttons, a gamepad.

const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "gas", ArrowDown: "brake" };
const DEAD_ZONE = 0.1;

export const isTyping = (target) => target instanceof Element && target.matches("input, select, textarea");

export class Hands {
  constructor(buttons) {
    this.held = new Set();
    this.isOn = () => true; // whether keys drive just now
    addEventListener("keydown", (event) => {
      const hand = KEYS[event.key];
      if (!hand || !this.isOn() || isTyping(event.target) || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      this.held.add(hand);
    });
    addEventListener("keyup", (event) => this.held.delete(KEYS[event.key]));
    addEventListener("blur", () => this.held.clear());
    document.addEventListener("visibilitychange", () => this.held.clear());
    for (const button of buttons) this.watch(button);
  }

  watch(button) {
    const { hand } = button.dataset;
    const press = (isDown) => {
      this.held[isDown ? "add" : "delete"](hand);
      button.classList.toggle("held", isDown);
    };
    button.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      button.setPointerCapture(event.pointerId);
      press(true);
    });
    for (const kind of ["pointerup", "pointercancel", "lostpointercapture"]) button.addEventListener(kind, () => press(false));
    button.addEventListener("contextmenu", (event) => event.preventDefault());
    button.addEventListener("keydown", (event) => { if (event.key === " " || event.key === "Enter") { event.preventDefault(); press(true); } });
    button.addEventListener("keyup", () => press(false));
    button.addEventListener("blur", () => press(false));
  }

  pedals() {
    const down = (hand) => Number(this.held.has(hand));
    let steering = down("left") - down("right"), throttle = down("gas") - down("brake");
    for (const pad of navigator.getGamepads?.() ?? []) {
      if (!pad) continue;
      const wheel = -pad.axes[0], stick = -pad.axes[1];
      const triggers = (pad.buttons[7]?.value ?? 0) - (pad.buttons[6]?.value ?? 0);
      if (Math.abs(wheel) > DEAD_ZONE) steering = wheel;
      if (Math.abs(stick) > DEAD_ZONE) throttle = stick;
      if (Math.abs(triggers) > DEAD_ZONE) throttle = triggers;
    }
    const within = (value) => Math.min(1, Math.max(-1, value));
    return { steering: within(steering), throttle: within(throttle) };
  }
}
