// The lines of a scene on the page of a new dub: a table of lines, and a time line of the faces.
import { Refusal, element, refused, say, secondsOf } from "./page.js";
import { readRecord } from "./consent.js";
import { onFiles, uploadShown } from "./upload.js";

const MOST_LINES = 200;
const FACE = "face:";
const ACTOR = "actor:";
const RULE = "rule:";
const at = (id) => document.querySelector(`#${id}`);

/** Return the length of a sound in seconds; NaN: the browser cannot read the sound. */
function lengthOf(url) {
  return new Promise((resolve) => {
    const player = new Audio();
    player.preload = "metadata";
    player.onloadedmetadata = () => resolve(player.duration);
    player.onerror = () => resolve(Number.NaN);
    player.src = url;
  });
}

/**
 * Lines of a scene. `onChange` is called when the lines change, and `now()` returns the position of the footage's player, seconds.
 * Return functions: `lines()`, the LineSpecs of the contract; `isReady()`, whether there are lines and all sounds are uploaded;
 * `faces(found)`, which takes a DetectFacesResponse or null; `people(actors)`, which takes pairs of name and text; `add(line)`, which
 * adds a LineSpec of an earlier dub with the address and the name of its sound.
 */
export function sceneLines(onChange, now) {
  let lines = [];
  let found = null;
  let people = [];

  const choices = () => [
    ...(found?.faces ?? []).map((face) => [`${FACE}${face.faceId}`, `Face ${face.faceId}`]),
    ...people.map(([name, text]) => [`${ACTOR}${name}`, text]),
    [`${RULE}FACE_RULE_SPEAKER`, "who speaks in the footage"],
  ];
  const faceOf = (who) => found?.faces.find((face) => `${FACE}${face.faceId}` === who);
  const endOf = (line) => line.start + (line.seconds || 0);

  function fillChoices(line) {
    const known = choices();
    // The faces of an earlier dub's footage are not known yet.
    if (!found && line.who.startsWith(FACE)) known.push([line.who, `Face ${line.who.slice(FACE.length)}`]);
    line.choice.replaceChildren(...known.map(([value, text]) => element("option", { value }, text)));
    if (!line.isChosen && found) line.who = known.find(([value]) => value === `${FACE}${found.speakerFaceId}`)?.[0] ?? known[0][0];
    if (!known.some(([value]) => value === line.who)) line.who = known[0][0];
    line.choice.value = line.who;
  }

  function show() {
    at("lines-table").hidden = !lines.length;
    lines.forEach((line, place) => {
      line.end.textContent = line.seconds ? `${endOf(line).toFixed(2)} s` : "…";
      const face = faceOf(line.who);
      line.picture.hidden = !face?.picture;
      if (face?.picture) line.picture.src = `data:image/jpeg;base64,${face.picture}`;
      for (const [part, text] of [[line.begin, "Begin"], [line.choice, "Who speaks"], [line.record, "Consent record"], [line.button, "Remove"], [line.here, "Begin at the player's position:"]]) {
        part.setAttribute("aria-label", `${text} line ${place + 1}`);
      }
    });
    drawLanes();
  }

  function changed() {
    show();
    onChange();
  }

  function move(line, seconds) {
    line.start = Math.max(0, Math.round(100 * seconds) / 100);
    line.begin.value = line.start;
    show();
  }

  /** Draw a lane for each face, and one for the other lines: when the face speaks in the footage, and the lines. */
  function drawLanes() {
    const length = Math.max(secondsOf(found?.duration), ...lines.map(endOf), 0.1);
    const percent = (seconds) => `${Math.min(100, (100 * seconds) / length)}%`;
    const part = (className, begin, end, text = "") => {
      const made = element("span", { className, title: text }, text);
      made.style.left = percent(begin);
      made.style.width = percent(end - begin);
      return made;
    };
    const block = (line, place) => {
      const made = part("line", line.start, Math.max(endOf(line), line.start + length / 100), String(place + 1));
      made.addEventListener("pointerdown", (event) => drag(event, made, line, length));
      return made;
    };
    const lane = (label, speaking, own) =>
      element("div", { className: "track" }, label, element("div", { className: "row-of-lines" }, speaking, own.map((line) => block(line, lines.indexOf(line)))));
    const rest = lines.filter((line) => !faceOf(line.who));
    at("scene-lanes").replaceChildren(
      ...(found?.faces ?? []).map((face) =>
        lane(
          element("img", { src: `data:image/jpeg;base64,${face.picture}`, alt: `Face ${face.faceId}` }),
          (face.speaking ?? []).map((span) => part("speaks", secondsOf(span.startTime), secondsOf(span.endTime))),
          lines.filter((line) => faceOf(line.who) === face),
        ),
      ),
      ...(rest.length ? [lane(element("span", { className: "small soft" }, "Others"), [], rest)] : []),
    );
  }

  function drag(event, made, line, length) {
    event.preventDefault();
    const { width } = made.parentElement.getBoundingClientRect();
    const { start } = line;
    const step = (moved) => move(line, start + ((moved.clientX - event.clientX) / width) * length);
    const stop = () => {
      window.removeEventListener("pointermove", step);
      changed();
    };
    window.addEventListener("pointermove", step);
    window.addEventListener("pointerup", stop, { once: true });
  }

  /** Add a row for a line and return the line. */
  function row(values) {
    const line = {
      who: "",
      isChosen: false,
      uri: "",
      seconds: 0,
      consent: null,
      ...values,
      begin: element("input", { type: "number", min: 0, step: 0.01, required: true }),
      here: element("button", { type: "button", className: "quiet small" }, "from the player"),
      choice: element("select"),
      picture: element("img", { className: "speaker", alt: "", hidden: true }),
      end: element("td", { "data-label": "End" }),
      record: element("input", { type: "file", accept: ".json,application/json" }),
      button: element("button", { type: "button", className: "quiet small" }, "Remove"),
    };
    line.begin.value = line.start;
    line.place = element("div", {}, element("p", { className: "small" }, line.name), element("div", { className: "bar thin", role: "progressbar", "aria-label": `Upload of ${line.name}`, "aria-valuemin": 0, "aria-valuemax": 100 }, element("i")));
    line.row = element(
      "tr",
      {},
      element("td", { "data-label": "Begin, seconds" }, line.begin, line.here),
      element("td", { "data-label": "Who speaks" }, element("div", { className: "row" }, line.picture, line.choice)),
      element("td", { "data-label": "New speech" }, line.place),
      line.end,
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
    line.choice.addEventListener("change", () => {
      line.who = line.choice.value;
      line.isChosen = true;
      changed();
    });
    line.record.addEventListener("change", async () => {
      const { record, text } = await readRecord(line.record.files[0]);
      line.consent = record;
      line.about.textContent = text;
      onChange();
    });
    line.button.addEventListener("click", () => {
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

  async function send(line, file) {
    try {
      line.uri = await uploadShown(file, line.place);
    } catch (problem) {
      refused(problem);
    }
    onChange();
  }

  onFiles(at("lines-drop"), async (files) => {
    refused("");
    if (lines.length + files.length > MOST_LINES) {
      refused(new Refusal(`A scene has ${MOST_LINES} lines at most.`, 0, ""));
      return;
    }
    for (const file of files) {
      const last = lines.at(-1);
      const line = row({ name: file.name, start: last ? Math.round(100 * endOf(last)) / 100 : 0, ...(last?.isChosen && { who: last.who, isChosen: true }) });
      // The next line begins where this one ends.
      await measure(line, URL.createObjectURL(file));
      await send(line, file);
    }
    say(`There are ${lines.length} lines.`);
  });

  return {
    isReady: () => lines.length > 0 && lines.every((line) => line.uri),
    lines: () =>
      lines.map((line) => ({
        startTime: `${line.start}s`,
        speechUri: line.uri,
        ...(line.consent && { consent: line.consent }),
        ...(line.who.startsWith(FACE) && { faceId: line.who.slice(FACE.length) }),
        ...(line.who.startsWith(ACTOR) && { actor: line.who.slice(ACTOR.length) }),
        ...(line.who.startsWith(RULE) && { faceRule: line.who.slice(RULE.length) }),
      })),
    faces(faces) {
      found = faces;
      lines.forEach(fillChoices);
      show();
    },
    people(actors) {
      people = actors;
      lines.forEach(fillChoices);
    },
    add(spec, url, name) {
      const who = spec.faceId !== undefined ? `${FACE}${spec.faceId}` : spec.actor ? `${ACTOR}${spec.actor}` : `${RULE}FACE_RULE_SPEAKER`;
      const line = row({ name, uri: spec.speechUri, start: secondsOf(spec.startTime), who, isChosen: true });
      line.place.querySelector(".bar").hidden = true;
      measure(line, url);
    },
  };
}
