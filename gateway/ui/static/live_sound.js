// Sends the sound of a live stream to its page as 16-bit samples, from the message "begin" on. Runs in the thread of the sound.
const PIECE_S = 0.04;

class LiveSound extends AudioWorkletProcessor {
  constructor() {
    super();
    this.port.onmessage = () => {
      this.piece = new Int16Array(Math.round(PIECE_S * sampleRate));
      this.count = 0;
      this.port.postMessage({ begun: currentTime });
    };
  }

  process([[samples]]) {
    if (!this.piece) return true;
    // A source that has not begun has no samples: silence.
    for (let index = 0; index < (samples?.length ?? 128); index += 1) {
      const value = samples ? samples[index] : 0;
      this.piece[this.count] = Math.max(-32768, Math.min(32767, Math.round(32768 * value)));
      this.count += 1;
      if (this.count === this.piece.length) {
        this.port.postMessage(this.piece.slice().buffer);
        this.count = 0;
      }
    }
    return true;
  }
}

registerProcessor("live-sound", LiveSound);
