// The form that enrols a person, and the progress of enrolments.
import { Refusal, api, at, confirmed, day, during, element, idFor, newRequestId, pageOf, refusalIn, refused, refusedAt, say, secondsOf, showBar, spoken } from "./page.js";
import { consentForm } from "./consent.js";
import { ended, stepName } from "./operations.js";
import { fileList } from "./upload.js";

/** Running enrolments that the page shows. */
const MOST_SHOWN = 20;
const MOST_FILES = 16;
const LONGEST_ID = 63;
const form = at("enrol-form");

/** Show an enrolment until its end, and return the enrolled person. Throws a Refusal with the reason if the enrolment failed. */
async function followed(name, title) {
  const cancel = element("button", { type: "button" }, "Cancel the enrolment");
  const bar = element("div", { className: "bar", role: "progressbar", "aria-label": title, "aria-valuemin": 0, "aria-valuemax": 100 }, element("i"));
  const state = element("p", { className: "soft" }, "Wait for the gateway");
  const section = element("section", { className: "card", tabindex: "-1", "aria-label": title }, element("div", { className: "head" }, element("h2", {}, title), cancel), bar, state);
  cancel.addEventListener("click", async () => {
    if (!(await confirmed("Cancel this enrolment?", ["The person is not enrolled."], "Cancel the enrolment"))) return;
    await during(cancel, () => api("POST", `/v1/${name}:cancel`, {}));
  });
  at("enrolments").append(section);
  try {
    const operation = await ended(name, ({ metadata = {} }) => {
      const { fraction = 0, remaining, step = "" } = metadata;
      const left = remaining ? `about ${spoken(secondsOf(remaining))} left` : "the time left is not known yet";
      state.textContent = `${Math.floor(100 * fraction)} %, ${left}: ${stepName(step)}`;
      showBar(section, Math.min(fraction, 0.99));
    });
    if (operation.error?.code === 1) throw new Refusal("The enrolment is cancelled: the person is not enrolled.", 400, "");
    if (operation.error) throw refusalIn(operation.error, 400);
    return operation.response;
  } finally {
    section.remove();
  }
}

/** Work of the form and of enrolments that run. `onEnrolled` is called with each new person, an Actor of the contract. */
export async function enrolling(onEnrolled) {
  const consent = consentForm(() => {});
  const footage = fileList("enrol-footage", () => {
    const files = footage.files();
    consent.footage(files.map(({ uri }) => uri));
  });
  let requestId = newRequestId();
  const shownNames = new Set();

  /** Empty the form. Return a function that fills in the form as it was; a file with a consent record has to be chosen again. */
  function emptied() {
    const values = [...form.elements].filter((control) => control.matches("input:not([type=file]), select")).map((control) => [control, control.value, control.checked]);
    const files = footage.clear();
    form.reset();
    at("enrol-name").dispatchEvent(new Event("input"));
    return () => {
      for (const [control, value, checked] of values) Object.assign(control, { value, checked });
      form.querySelector("[name=consent-kind]:checked").dispatchEvent(new Event("change", { bubbles: true }));
      at("enrol-name").dispatchEvent(new Event("input"));
      footage.restore(files);
    };
  }

  /** Show an enrolment and then the person. A refusal opens the form as `fill` fills it in, unless the user has opened it for another person. */
  async function follow(name, title, fill) {
    shownNames.add(name);
    try {
      await onEnrolled(await followed(name, title));
      say("The person is enrolled.");
    } catch (problem) {
      if (!fill || at("enrol").open) {
        refused(problem);
        return;
      }
      fill();
      at("enrol").open = true;
      refusedAt(form, problem);
    }
  }

  /** Return what is wrong with the name of the person, as a Refusal; null: nothing. */
  function nameRefusal() {
    if (!at("enrol-name").value.trim()) return new Refusal("Give the name of the person.", 0, "actor_id");
    if (idFor(at("enrol-name").value, LONGEST_ID) || consent.record()) return null;
    return new Refusal("Give a name with letters a to z or digits, or a consent record that names the person: without one, the person would have a random name.", 0, "actor_id");
  }

  function request() {
    if (nameRefusal()) throw nameRefusal();
    const files = footage.files();
    if (!files.length) throw new Refusal("Choose footage of the person.", 0, "footage_uri");
    if (files.length > MOST_FILES) throw new Refusal(`Choose ${MOST_FILES} files at most.`, 0, "footage_uri");
    if (files.some(({ uri }) => !uri)) throw new Refusal("Not all files are uploaded: wait, or remove the others.", 0, "footage_uri");
    if (consent.refusal()) throw consent.refusal();
    const [footageUri, ...moreFootageUris] = files.map(({ uri }) => uri);
    const record = consent.record();
    return {
      requestId,
      actorId: idFor(at("enrol-name").value, LONGEST_ID),
      footageUri,
      moreFootageUris,
      method: at("enrol-method").value,
      faceRule: at("enrol-face").value,
      project: at("enrol-project").value.trim(),
      skipPersonalization: at("enrol-quick").checked,
      ...(record && { consent: record }),
    };
  }

  at("enrol-name").addEventListener("input", () => {
    const id = idFor(at("enrol-name").value, LONGEST_ID);
    at("enrol-id").textContent = id ? `Id: ${id}` : at("enrol-name").value.trim() ? "The gateway makes an id." : "";
  });
  at("enrol-name").addEventListener("change", () => {
    at("consent-subject").value ||= at("enrol-name").value.trim();
  });

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    during(at("enrol-begin"), async () => {
      try {
        const wanted = request();
        const { name } = await api("POST", "/v1/actors", wanted);
        requestId = newRequestId();
        at("enrol").open = false;
        say("The enrolment has begun.");
        follow(name, `Enrolling ${at("enrol-name").value.trim()}`, emptied());
        at("enrolments").lastElementChild.focus();
      } catch (problem) {
        // After a lost answer, the enrolment may run: the same id begins no second one.
        if (problem.status >= 400 && problem.status < 500) requestId = newRequestId();
        refusedAt(form, problem);
      }
    });
  });
  at("enrol-begin").disabled = false;

  const running = await pageOf("/v1/operations", "operations", { pageSize: MOST_SHOWN, filter: "done=false AND kind=actor" });
  for (const { name, metadata } of running.entries) {
    if (!shownNames.has(name)) follow(name, `Enrolment of ${day(metadata?.createTime)}`);
  }
}
