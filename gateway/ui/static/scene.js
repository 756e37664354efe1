// The lines of a scene on the page of a new dub: a table of lines, and a time line of the faces.
import { Refusal, at, element, lastPart, refused, say, secondsOf } from "./page.js";
import { readRecord } from "./consent.js";
import { onFiles, sendRow, uploadBar } from "./upload.js";

const MOST_LINES = 200;
const FACE = "face:";
const ACTOR = "actor:";
const RULE = "rule:";
const SPEAKER = `${RULE}FACE_RULE_SPEAKER`;
/** The face of an earlier dub's line that the list does not offer, such as one by a point of a frame. */
const EARLIER = "earlier:";
/** Fields of a LineSpec that say who speaks. */
const WHO = ["faceId", "point", "box", "faceRule", "boxes", "actor"];

/** Fields of a LineSpec that hold for the line alone; empty: as the dub. */
const OPTIONS = ["language", "expressiveness"];

/** Return the length of a sound in seconds; NaN: the browser does not know it, such as that of a recording in WebM. */
function lengthOf(url) {
  return new Promise((resolve) => {
    const player = new Audio();
    player.preload = "metadata";
    player.onloadedmetadata = () => resolve(Number.isFinite(player.duration) ? player.duration : Number.NaN);
    player.onerror = () => resolve(Number.NaN);
    player.src = url;
  });
}

/** Return who speaks a line of an earlier dub, as a value of the list. */
function whoOf(spec) {
  const given = WHO.filter((field) => spec[field] !== undefined && spec[field].length !== 0);
  if (given.length !== 1) return EARLIER;
  return { faceId: `${FACE}${spec.faceId}`, actor: `${ACTOR}${spec.actor}`, faceRule: `${RULE}${spec.faceRule}` }[given[0]] ?? EARLIER;
}

/** Return the fields of a LineSpec for who speaks. */
function fieldsOf(who) {
  const value = who.slice(who.indexOf(":") + 1);
  return who.startsWith(FACE) ? { faceId: value } : who.startsWith(ACTOR) ? { actor: value } : { faceRule: value };
}

/**
 * Lines of a scene. `onChange` is called when the lines change, and `now()` returns the position of the footage's player, seconds.
 * Return functions: `lines()`, the LineSpecs of the contract; `isReady()`, whether there are lines and all sounds are uploaded;
 * `refusal()`, a Refusal for a consent record of a line that is none, or null;
 * `faces(detection)`, which takes a DetectFacesResponse or null; `people(actors)`, which takes pairs of name and text; `add(line)`, which
 * adds a LineSpec of an earlier dub with the address and the name of its sound.
 */
export function sceneLines(onChange, now) {
  let lines = [];
  let detection = null;
  let people = [];

  const choices = () => [
    ...(detection?.faces ?? []).map((face) => [`${FACE}${face.faceId}`, `Face ${face.faceId}`]),
    ...people.map(([name, text]) => [`${ACTOR}${name}`, text]),
    [SPEAKER, "who speaks in the footage"],
  ];
  /** Return the words for who speaks if the list does not offer it. */
  function unlisted(who) {
    if (who === EARLIER) return "as in the earlier dub";
    if (who.startsWith(FACE)) return `Face ${who.slice(FACE.length)}${detection ? ", not in this footage" : ""}`;
    return who.startsWith(ACTOR) ? `${lastPart(who)}, not enrolled any more` : "by the rule of the earlier dub";
  }
  const faceOf = (who) => detection?.faces.find((face) => `${FACE}${face.faceId}` === who);
  const endOf = (line) => line.start + (line.seconds || 0);

  function fillChoices(line) {
    const offered = choices();
    const speaker = detection?.speakerFaceId ?? (detection?.faces.length === 1 ? detection.faces[0].faceId : undefined);
    if (!line.isChosen) line.who = speaker === undefined ? SPEAKER : `${FACE}${speaker}`;
    // The gateway refuses whom it does not know. Another person instead would be a silent mistake.
    if (!offered.some(([value]) => value === line.who)) offered.push([line.who, unlisted(line.who)]);
    line.choice.replaceChildren(...offered.map(([value, text]) => element("option", { value }, text)));
    line.choice.value = line.who;
  }

  function show() {
    at("lines-table").hidden = !lines.length;
    lines.forEach((line, index) => {
      line.end.textContent = Number.isNaN(line.seconds) ? "not known" : line.seconds ? `${endOf(line).toFixed(2)} s` : "…";
      const face = faceOf(line.who);
      line.picture.hidden = !face?.picture;
      if (face?.picture) line.picture.src = `data:image/jpeg;base64,${face.picture}`;
      const parts = [
        [line.begin, "Begin", "start_time start_timecode start"],
        [line.choice, "Who speaks", "face face_id face_rule point box boxes actor"],
        [line.panel, "New speech of", "speech_uri audio"],
        [line.language, "Language", "language"],
        [line.expressiveness, "Expressiveness", "expressiveness"],
        [line.record, "Consent record", "consent"],
        [line.button, "Remove", ""],
        [line.here, "Begin at the player's position:", ""],
      ];
      for (const [part, text, fields] of parts) {
        part.setAttribute("aria-label", `${text} line ${index + 1}`);
        if (!fields) continue;
        part.dataset.field = fields.split(" ").map((field) => `lines[${index}].${field}`).join(" ");
        part.id = `line-${index}-${fields.split(" ")[0]}`;
      }
    });
    drawLanes();
  }

  function changed() {
    show();
    onChange();
  }

  function move(line, seconds) {
    line.start = Math.max(0, Math.round(1000 * seconds) / 1000);
    line.begin.value = line.start;
    line.timecode = line.at.textContent = "";
    show();
  }

  /** Draw a lane for each face, and one for the other lines: when the face speaks in the footage, and the lines. */
  function drawLanes() {
    const length = Math.max(secondsOf(detection?.duration), ...lines.map(endOf), 0.1);
    const percent = (seconds) => `${Math.min(100, (100 * seconds) / length)}%`;
    const part = (className, begin, end, text = "") => {
      const piece = element("span", { className, title: text }, text);
      piece.style.left = percent(begin);
      piece.style.width = percent(end - begin);
      return piece;
    };
    const block = (line, index) => {
      const piece = part("line", line.start, Math.max(endOf(line), line.start + length / 100), String(index + 1));
      piece.addEventListener("pointerdown", (event) => drag(event, piece, line, length));
      return piece;
    };
    const lane = (label, speaking, own) =>
      element("div", { className: "track" }, label, element("div", { className: "row-of-lines" }, speaking, own.map((line) => block(line, lines.indexOf(line)))));
    const rest = lines.filter((line) => !faceOf(line.who));
    at("scene-lanes").replaceChildren(
      ...(detection?.faces ?? []).map((face) =>
        lane(
          element("img", { src: `data:image/jpeg;base64,${face.picture}`, alt: `Face ${face.faceId}` }),
          (face.speaking ?? []).map((span) => part("speaks", secondsOf(span.startTime), secondsOf(span.endTime))),
          lines.filter((line) => faceOf(line.who) === face),
        ),
      ),
      ...(rest.length ? [lane(element("span", { className: "small soft" }, "Others"), [], rest)] : []),
    );
  }

  function drag(event, piece, line, length) {
    if (event.button !== 0) return;
    event.preventDefault();
    const { width } = piece.parentElement.getBoundingClientRect();
    const { start } = line;
    const ends = new AbortController();
    const stop = () => {
      ends.abort();
      changed();
    };
    const { signal } = ends;
    window.addEventListener("pointermove", (moved) => move(line, start + ((moved.clientX - event.clientX) / width) * length), { signal });
    for (const name of ["pointerup", "pointercancel"]) window.addEventListener(name, stop, { signal });
  }

  /** Add a row for a line and return the line. */
  function row(values) {
    const line = {
      who: "",
      isChosen: false,
      uri: "",
      seconds: 0,
      timecode: "",
      earlier: {},
      consent: null,
      hasFailed: false,
      stop: new AbortController(),
      ...values,
      begin: element("input", { type: "number", min: 0, step: "any", required: true }),
      at: element("p", { className: "small soft" }),
      here: element("button", { type: "button", className: "quiet small" }, "from the player"),
      choice: element("select"),
      picture: element("img", { className: "speaker", alt: "", hidden: true }),
      end: element("td", { "data-label": "End" }),
      language: element("input", { size: 7, maxlength: 80, placeholder: "the dub's", spellcheck: "false" }),
      expressiveness: element("input", { type: "number", min: 0.5, max: 1.5, step: 0.05, placeholder: "the dub's" }),
      record: element("input", { type: "file", accept: ".json,application/json" }),
      button: element("button", { type: "button", className: "quiet small" }, "Remove"),
    };
    line.begin.value = line.start;
    line.at.textContent = line.timecode;
    for (const name of OPTIONS) line[name].value = line.earlier[name] ?? "";
    line.panel = element("div", { role: "group" }, element("p", { className: "small" }, line.name), uploadBar(line.name));
    line.row = element(
      "tr",
      {},
      element("td", { "data-label": "Begin, seconds" }, line.begin, line.here, line.at),
      element("td", { "data-label": "Who speaks" }, element("div", { className: "row" }, line.picture, line.choice)),
      element("td", { "data-label": "New speech" }, line.panel),
      line.end,
      element("td", { "data-label": "Language" }, line.language),
      element("td", { "data-label": "Expressiveness" }, line.expressiveness),
      element("td", { "data-label": "Own consent record" }, line.record, line.about = element("p", { className: "small" })),
      element("td", {}, line.button),
    );
    line.begin.addEventListener("change", () => {
      move(line, Number(line.begin.value) || 0);
      onChange();
    });
    line.here.addEventListener("click", () => {
      move(line, now());
      onChange();
    });
    for (const name of OPTIONS) line[name].addEventListener("change", onChange);
    line.choice.addEventListener("change", () => {
      line.who = line.choice.value;
      line.isChosen = true;
      changed();
    });
    line.record.addEventListener("change", async () => {
      const [file] = line.record.files;
      const given = await readRecord(file);
      if (line.record.files[0] !== file) return;
      line.consent = given;
      line.about.textContent = given.text;
      onChange();
    });
    line.button.addEventListener("click", () => {
      line.stop.abort();
      lines = lines.filter((other) => other !== line);
      line.row.remove();
      at("lines-file").focus();
      changed();
    });
    lines.push(line);
    fillChoices(line);
    at("lines").append(line.row);
    return line;
  }

  async function measure(line, url) {
    line.seconds = await lengthOf(url);
    changed();
  }

  onFiles(at("lines-drop"), async (files) => {
    refused("");
    if (lines.length + files.length > MOST_LINES) {
      refused(new Refusal(`A scene has ${MOST_LINES} lines at most.`, 0, ""));
      return;
    }
    for (const file of files) {
      const last = lines.at(-1);
      const failed = lines.find((one) => one.hasFailed && one.name === file.name);
      const line = failed ?? row({ name: file.name, start: last ? Math.round(1000 * endOf(last)) / 1000 : 0, ...(last?.isChosen && last.who !== EARLIER && { who: last.who, isChosen: true }) });
      // The next line begins where this one ends.
      await measure(line, URL.createObjectURL(file));
      await sendRow(line, file, onChange);
    }
    say(`There are ${lines.length} lines.`);
  });

  return {
    isReady: () => lines.length > 0 && lines.every((line) => line.uri),
    refusal() {
      const index = lines.findIndex((line) => line.consent?.isBroken);
      return index < 0 ? null : new Refusal(`Line ${index + 1}: ${lines[index].consent.text}`, 0, "");
    },
    lines: () =>
      lines.map((line) => ({
        ...Object.fromEntries(Object.entries(line.earlier).filter(([field]) => !OPTIONS.includes(field) && (line.who === EARLIER || !WHO.includes(field)))),
        ...(line.timecode ? { startTimecode: line.timecode } : { startTime: `${line.start}s` }),
        speechUri: line.uri,
        ...(line.language.value.trim() && { language: line.language.value.trim() }),
        ...(line.expressiveness.value && { expressiveness: Number(line.expressiveness.value) }),
        ...(line.consent?.record && { consent: line.consent.record }),
        ...(line.who !== EARLIER && fieldsOf(line.who)),
      })),
    faces(faces) {
      detection = faces;
      lines.forEach(fillChoices);
      show();
    },
    people(actors) {
      people = actors;
      lines.forEach(fillChoices);
    },
    add(spec, url, name) {
      const { startTime, startTimecode: timecode = "", ...earlier } = spec;
      // The page shows whole seconds of a timecode, because it does not know the frame rate.
      const [hours, minutes, wholeSeconds] = timecode.split(/[:;]/).map((part) => Number(part) || 0);
      const start = timecode ? 3600 * hours + 60 * minutes + wholeSeconds : secondsOf(startTime);
      const line = row({ name, uri: spec.speechUri, start, timecode, earlier, who: whoOf(spec), isChosen: true });
      line.panel.querySelector(".bar").hidden = true;
      measure(line, url);
    },
  };
}
