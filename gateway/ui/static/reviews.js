// Words of the pages of batches and shots.
import { day, lastPart } from "./page.js";

export const STATES = {
  WAITING: ["soft", "Waiting"],
  RUNNING: ["soft", "Running"],
  DONE: ["good", "Done"],
  UNDUBBED: ["bad", "Not dubbed"],
  FAILED: ["bad", "Failed"],
  CANCELLED: ["soft", "Cancelled"],
};
const DECISIONS = { APPROVED: ["good", "Approved"], REJECTED: ["bad", "Rejected"], ASSIGNED: ["", "Assigned"] };

export const stateOf = (shot) => STATES[shot.state.replace("SHOT_STATE_", "")] ?? ["soft", shot.state];

/** Return look and words of a decision; "Undecided" without one. */
export function decisionOf(review) {
  if (!review) return ["soft", "Undecided"];
  const [look, text] = DECISIONS[review.state.replace("REVIEW_STATE_", "")] ?? ["", review.state];
  return [look, `${text}${review.assignee ? ` to ${review.assignee}` : ""}${review.reviewer ? ` by ${review.reviewer}` : ""}`];
}

export const shotId = (shot) => lastPart(shot.name);
export const hasEnded = (shot) => !["SHOT_STATE_WAITING", "SHOT_STATE_RUNNING"].includes(shot.state);

/** Return a decision as {title, note, position} for the history. */
export function toldDecision(review, presentDigest) {
  const region = review.region;
  const percent = (share) => `${Math.round(100 * share)} %`;
  const position = [
    review.frame === undefined ? "" : `frame ${review.frame}`,
    region ? `place ${percent(region.x)}, ${percent(region.y)}, size ${percent(region.width)} × ${percent(region.height)}` : "",
    (review.outputSha256 ?? "") === presentDigest ? "" : "about an earlier video",
  ];
  return { title: `${decisionOf(review)[1]}, ${day(review.decideTime)}`, note: review.note ?? "", position: position.filter(Boolean).join(", ") };
}

/**
 * Verdicts of a shot: the question, and its figures [name, path, lowest, highest threshold, what a missed threshold means].
 * A figure without a threshold is shown, and decides nothing.
 */
const QUESTIONS = [
  ["Does the mouth follow the speech?", [
    ["Correlation of target and drawn opening", "rOpening", "minROpening", null, "The drawn mouth opens at other moments than the speech asks for."],
    ["Mouth later than the sound, s", "finish.lateness", null, null, ""],
    ["Certainty that mouth and sound belong together", "finish.syncConfidence", null, null, ""],
    ["Speech with a still mouth", "finish.stillShare", null, null, ""],
  ]],
  ["Does the mouth move as this person's mouth does?", [
    ["Opening in silence", "motion.silenceOpening", null, "maxSilenceOpening", "The mouth stays open where nobody speaks."],
    ["Spread of the opening, over the person's own", "motion.openingSpread", "minOpeningSpread", "maxOpeningSpread", "The mouth moves clearly less, or clearly more, than the person's does."],
    ["Spread of the lip width, over the person's own", "motion.widthSpread", "minWidthSpread", null, "The lips round and spread less than the person's do."],
    ["Fastest change of the opening, over the person's own", "motion.fastestStep", null, "maxFastestStep", "The mouth jumps faster than the person's ever does."],
  ]],
  ["Is the picture clean?", [
    ["Teeth of another colour", "appearance.tintAlarms", null, "maxTintAlarms", "The teeth change their colour."],
    ["Dark place under the nose", "appearance.nostrilAlarms", null, "maxNostrilAlarms", "A dark place appears under the nose."],
    ["Dull inside of the mouth", "appearance.lowContrast", null, "maxLowContrast", "The inside of the mouth is dull."],
    ["Change inside the mouth, over the video's", "appearance.popping", null, "maxPopping", "The inside of the mouth flickers."],
    ["Moving clothing", "appearance.clothingMoved", null, "maxClothingMoved", "Clothing moves with the jaw."],
    ["Distance of the face from the person's", "appearance.faceDistance", null, "maxFaceDistance", "The face looks less like the person."],
    ["Edge in the skin", "finish.seam", null, null, ""],
    ["Flicker of the skin", "finish.flicker", null, null, ""],
  ]],
];

const valueOf = (shot, path) => path.split(".").reduce((holder, key) => holder?.[key], shot);

/**
 * Return the verdicts of a shot, [{question, look, text, figures}]: `look` is a class, `text` says what thresholds were missed in plain words,
 * and figures are [[name, value, thresholds, missed]].
 */
export function verdictsOf(shot) {
  const quality = shot.quality ?? {};
  return QUESTIONS.map(([question, rows]) => {
    const figures = [];
    const faults = [];
    let judged = false;
    for (const [name, path, low, high, meaning] of rows) {
      const value = valueOf(shot, path);
      if (value === undefined || value === null) continue;
      const number = Number.parseFloat(value);
      const [least, most] = [quality[low], quality[high]];
      const limits = [least === undefined ? "" : `at least ${least}`, most === undefined ? "" : `at most ${most}`].filter(Boolean).join(", ");
      const missed = (least !== undefined && number < least) || (most !== undefined && number > most);
      judged ||= Boolean(limits);
      if (missed) faults.push(meaning);
      figures.push([name, number.toFixed(Math.abs(number) < 0.1 ? 3 : 2), limits, missed]);
    }
    if (!figures.length) return { question, look: "soft", text: "Not measured.", figures };
    if (faults.length) return { question, look: "bad", text: faults.join(" "), figures };
    return { question, look: judged ? "good" : "soft", text: judged ? "Yes, by every threshold of the batch." : "Measured, and the batch sets no threshold.", figures };
  });
}
