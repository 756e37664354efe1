// Two videos in lock-step: one over the other with a wipe, by frames. The upper video leads, and the lower one follows.

/** Largest difference of the two videos that is corrected by speed; beyond, the lower video jumps, seconds. */
const JUMP_S = 0.3;

export class Player {
  /**
   * @param {HTMLVideoElement} before lower video
   * @param {HTMLVideoElement} after upper video, which leads
   * @param {{frameRate: number, numFrames: number}} facts of the upper video
   * @param {(frame: number) => void} onFrame called when another frame is shown
   */
  constructor(before, after, facts, onFrame) {
    this.before = before;
    this.after = after;
    this.frameRate = facts.frameRate;
    this.numFrames = facts.numFrames;
    this.onFrame = onFrame;
    this.speed = 1;
    /** Time of the lower video at the begin of the upper one, seconds. */
    this.begin = 0;
    this.shown = -1;
    after.addEventListener("ended", () => this.pause());
    for (const video of [before, after]) {
      for (const name of ["seeked", "loadeddata"]) video.addEventListener(name, () => this.redraw());
    }
    before.addEventListener("loadedmetadata", () => this.follow(true));
    const tick = () => {
      this.follow(false);
      if (this.frame !== this.shown) this.redraw();
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  get playing() {
    return !this.after.paused;
  }

  get frame() {
    return Math.min(this.numFrames - 1, Math.floor(this.after.currentTime * this.frameRate + 1e-3));
  }

  redraw() {
    this.shown = this.frame;
    this.onFrame(this.shown);
  }

  async play() {
    if (this.after.ended) this.after.currentTime = 0;
    this.follow(true);
    this.after.playbackRate = this.speed;
    this.before.play().catch(() => {});
    // A pause that comes before the begin rejects the promise, which is no fault.
    await this.after.play().catch(() => {});
  }

  pause() {
    this.after.pause();
    this.before.pause();
    this.seek(this.frame);
  }

  /** Show a frame in both videos. The middle of the frame's time is clear of rounding. */
  seek(frame) {
    const kept = Math.max(0, Math.min(this.numFrames - 1, frame));
    this.after.currentTime = (kept + 0.5) / this.frameRate;
    this.follow(true);
  }

  step(frames) {
    if (this.playing) this.pause();
    this.seek(this.frame + frames);
  }

  setSpeed(speed) {
    this.speed = speed;
    this.after.playbackRate = speed;
    this.before.playbackRate = speed;
  }

  /** Bring the lower video to the time of the upper one: by its speed while both play, otherwise at once. */
  follow(now) {
    const { before, after } = this;
    if (!before.duration || before.error) return;
    const time = Math.max(0, Math.min(after.currentTime + this.begin, before.duration - 0.5 / this.frameRate));
    const late = before.currentTime - time;
    if (now || Math.abs(late) > JUMP_S) {
      if (Math.abs(late) > 1e-4) before.currentTime = time;
      if (this.playing && before.paused && time < before.duration - 0.1) before.play().catch(() => {});
    } else if (this.playing) {
      before.playbackRate = Math.abs(late) > 0.25 / this.frameRate ? this.speed * Math.max(0.5, Math.min(2, 1 - 3 * late)) : this.speed;
    }
  }
}
