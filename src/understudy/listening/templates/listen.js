"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const player = $("player");
  const me = Array.from(crypto.getRandomValues(new Uint8Array(12)), (n) => n.toString(16).padStart(2, "0")).join("");
  const GAP_MS = 350;
  const SEAT_MS = 3000;
  const NAMES = { r: "The reference", a: "A", b: "B", w: "The reference" };

  let state = null;   // as the server has it
  let view = "wait";
  let at = 0;         // the trial that is shown
  let chosen = "a";   // the side that a number scores
  let identity = null;
  let queue = [];     // what is still to be played, the first of it now
  let inTurn = false; // whether it is the whole pair, after which A comes first again
  let timer = 0;
  let closed = false;
  const blobs = new Map();

  // The server

  async function ask(path, body) {
    const reply = await fetch(path, body === undefined ? {} : {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ window: me, ...body }),
    });
    if (!reply.ok) {
      const { detail } = await reply.json().catch(() => ({ detail: `the server answered ${reply.status}` }));
      throw Object.assign(new Error(detail), { refused: true });
    }
    return reply.json();
  }

  async function attempt(work) {
    try {
      await work();
      return true;
    } catch (error) {
      if (error.refused) {
        alarm(`${error.message}.`);
        await refresh().catch(() => {});
      } else {
        alarm("The server does not answer. Everything up to your last answer is saved; " +
          "type the command again and open the address that it prints.");
      }
      return false;
    }
  }

  async function refresh() {
    state = await ask("state");
    if (state.phase === "done") show("done");
    else draw();
  }

  async function sit(take = false) {
    if (closed) return;
    let yours;
    try {
      ({ yours } = await ask("lock", { take }));
    } catch (error) {
      if (!closed && view !== "done") {
        alarm("The server does not answer. Everything up to your last answer is saved; " +
          "type the command again and open the address that it prints.");
      }
      return;
    }
    if (!yours && view !== "taken") {
      stop();
      show("taken");
    } else if (yours && (view === "taken" || view === "wait")) {
      await enter();
    }
  }

  async function enter() {
    await attempt(async () => {
      state = await ask("state");
      quiet();
      if (state.phase === "done") {
        show("done");
        return;
      }
      const open = state.trials.findIndex((trial) => !complete(trial));
      at = open < 0 ? state.trials.length - 1 : open;
      const untouched = !state.given && !state.trials.some((trial) => trial.heard.length);
      if (untouched) show("intro");
      else if (open < 0) show("question");
      else go(at);
    });
  }

  // What is heard

  async function blob(name) {
    if (!blobs.has(name)) {
      const loading = fetch(`stimuli/${name}.wav`).then(async (reply) => {
        if (!reply.ok) throw new Error(`recording ${name}: the server answered ${reply.status}`);
        return URL.createObjectURL(await reply.blob());
      });
      loading.catch(() => blobs.delete(name));
      blobs.set(name, loading);
    }
    return blobs.get(name);
  }

  const source = (side) => side === "w" ? state.whole_reference
    : side === "r" ? state.reference : state.trials[at][side];

  function load() {
    const next = state.trials[at + 1];
    for (const name of [...sides().map(source), ...(next ? [next.a, next.b] : [])]) blob(name).catch(() => {});
  }

  async function play(sequence, turn = false) {
    stop();
    queue = sequence;
    inTurn = turn;
    await start();
  }

  async function start() {
    const mine = queue;
    const side = queue[0];
    if (side === "a" || side === "b") chosen = side;
    try {
      player.src = await blob(source(side));
      if (mine !== queue) return;
      await player.play();
    } catch (error) {
      if (mine === queue) {
        stop();
        if (error.name !== "AbortError") alarm(`This cannot be played: ${error.message}`);
      }
      return;
    }
    say(`${NAMES[side]} is playing`);
    draw();
  }

  function stop() {
    clearTimeout(timer);
    queue = [];
    player.pause();
    draw();
  }

  player.addEventListener("ended", async () => {
    const side = queue[0];
    if (!side) return;
    const rest = queue.slice(1);
    queue = rest;
    if (side !== "w") {
      const trial = state.trials[at];
      if (!trial.heard.includes(side)) {
        if (!await attempt(() => ask("heard", { trial: trial.id, side }))) return;
        trial.heard.push(side);
      }
    }
    if (queue !== rest) return;  // something else was started meanwhile
    if (rest.length) timer = setTimeout(start, GAP_MS);
    else if (view === "trial" && isPair() && inTurn) chosen = open(state.trials[at])[0] || chosen;
    draw();
  });

  player.addEventListener("timeupdate", bars);

  function bars() {
    for (const button of all(".play")) {
      const playing = queue[0] === button.dataset.side && !player.paused;
      const part = playing && player.duration ? player.currentTime / player.duration : 0;
      button.querySelector(".bar i").style.width = `${100 * part}%`;
    }
  }

  // What is answered

  const isPair = () => "scores" in state.trials[at];
  const sides = () => isPair() ? ["r", "a", "b"] : ["a", "b"];
  const open = (trial) => "noticed" in trial ? (trial.noticed === null ? ["noticed"] : [])
    : ["a", "b"].filter((side) => trial.scores[side] === null);
  const complete = (trial) => open(trial).length === 0;
  const unheard = () => sides().filter((side) => !state.trials[at].heard.includes(side));

  async function score(side, value) {
    const trial = state.trials[at];
    const missing = ["r", side].filter((one) => !trial.heard.includes(one));
    if (missing.length) {
      note(`${NAMES[missing[0]]} must be heard to its end first.`);
      return;
    }
    if (trial.scores[side] !== value) {
      const done = await attempt(async () => {
        const { given } = await ask("score", { trial: trial.id, side, score: value, replaces: trial.scores[side] });
        trial.scores[side] = value;
        state.given = given;
        quiet();
      });
      if (!done) return;
    }
    say(`${side.toUpperCase()} scored ${value}`);
    chosen = open(trial)[0] || side;
    draw();
  }

  async function notice(value) {
    const trial = state.trials[at];
    if (unheard().length) {
      note(`${NAMES[unheard()[0]]} must be heard to its end first.`);
      return;
    }
    if (trial.noticed !== value) {
      const done = await attempt(async () => {
        const { given } = await ask("notice", { trial: trial.id, noticed: value, replaces: trial.noticed });
        trial.noticed = value;
        state.given = given;
        quiet();
      });
      if (!done) return;
    }
    say(value ? "Yes, noticed" : "No, not noticed");
    draw();
  }

  // What is shown

  function show(name) {
    view = name;
    for (const section of all("main > section")) section.hidden = section.id !== `view-${name}`;
    draw();
    const heading = document.querySelector(`#view-${name} h1`);
    if (heading) heading.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }

  function go(to) {
    stop();
    at = to;
    chosen = isPair() ? open(state.trials[at])[0] || "a" : "a";
    note("");
    load();
    show("trial");
  }

  function forward() {
    if (view === "intro") go(at);
    else if (view === "calls") go(at);
    else if (view === "trial" && !complete(state.trials[at])) note(todo());
    else if (view === "trial") {
      const first = state.trials.findIndex((trial) => "noticed" in trial);
      if (at + 1 === state.trials.length) {
        stop();
        show("question");
      } else if (at + 1 === first && state.trials[first].heard.length === 0) {
        stop();
        at = first;
        load();
        show("calls");
      } else go(at + 1);
    }
  }

  function back() {
    if (view === "question") go(state.trials.length - 1);
    else if (view === "calls") go(at - 1);
    else if (view === "trial" && at > 0) go(at - 1);
  }

  function todo() {
    const missing = unheard();
    if (missing.length) return `Hear ${missing.map((side) => side === "r" ? "the reference" : side.toUpperCase()).join(", ")} to the end.`;
    if (!isPair()) return state.trials[at].noticed === null ? "Would you notice the change on a call?" : "";
    const left = open(state.trials[at]);
    return left.length ? `Score ${left.map((side) => side.toUpperCase()).join(" and ")}.` : "";
  }

  function draw() {
    const answering = state && state.phase === "answer";
    $("stop").hidden = !answering || !["intro", "trial", "calls", "question"].includes(view);
    if (answering) {
      $("progress").max = state.total;
      $("progress").value = state.given;
      $("count").textContent = `${state.pass > 1 ? "second pass, " : ""}${state.given} of ${state.total} answers saved`;
      $("pairs-count").textContent = state.trials.filter((trial) => !("noticed" in trial)).length;
      $("again").hidden = state.pass < 2;
    }
    for (const button of all(".play")) {
      button.classList.toggle("playing", queue[0] === button.dataset.side);
    }
    if (view === "trial" && answering) drawTrial();
    if (view === "question") {
      for (const button of all("[data-identity]")) button.setAttribute("aria-pressed", String(identity === (button.dataset.identity === "true")));
      $("finish").disabled = identity === null;
    }
    if (view === "done") drawDone();
    bars();
  }

  function drawTrial() {
    const trial = state.trials[at];
    const pairs = state.trials.filter((one) => !("noticed" in one)).length;
    const pair = isPair();
    $("title").textContent = pair ? `Pair ${at + 1} of ${pairs}` : `Call ${at + 1 - pairs} of ${state.trials.length - pairs}`;
    $("task").textContent = pair
      ? "How much do A and B sound like the reference: the same person, the same recording chain?"
      : "As a caller hears it. If the voice changed from A to B between two calls, would you notice?";
    $("takes").classList.toggle("two", !pair);
    $("scores").hidden = !pair;
    $("notice").hidden = pair;
    for (const one of all(".for-pairs")) one.hidden = !pair;
    for (const one of all(".for-calls")) one.hidden = pair;
    for (const button of all("#takes .play")) {
      const side = button.dataset.side;
      const heard = trial.heard.includes(side);
      button.hidden = side === "r" && !pair;
      button.classList.toggle("heard", heard);
      button.classList.toggle("chosen", pair && side === chosen);
      button.querySelector(".state").textContent = queue[0] === side ? "playing" : heard ? "✓ heard" : "not heard yet";
    }
    for (const scale of all(".scale")) {
      const side = scale.dataset.side;
      scale.classList.toggle("chosen", side === chosen);
      for (const button of scale.querySelectorAll("button")) {
        button.disabled = !pair || ["r", side].some((one) => !trial.heard.includes(one));
        button.setAttribute("aria-pressed", String(pair && trial.scores[side] === Number(button.dataset.score)));
      }
    }
    for (const button of all("[data-noticed]")) {
      button.disabled = unheard().length > 0;
      button.setAttribute("aria-pressed", String(trial.noticed === (button.dataset.noticed === "true")));
    }
    $("back").disabled = at === 0;
    $("next").disabled = !complete(trial);
    if (!$("hint").dataset.note) $("hint").textContent = todo();
  }

  function drawDone() {
    $("progress").max = $("progress").value = 1;
    $("count").textContent = "all answers saved";
    $("done-title").textContent = state.locked > 1 ? "Both passes are complete" : "Thank you: this pass is complete";
    $("done-text").textContent = state.problem ? "Your answers are locked and safe, but the ratings are not written:"
      : "Your answers are locked, the hidden order was opened, and the ratings are written into the run.";
    if (state.problem) alarm(state.problem);
    $("second-text").hidden = $("second").hidden = !state.may_repeat;
    $("end").classList.toggle("primary", !state.may_repeat);
  }

  function close(title, text) {
    closed = true;
    stop();
    $("closed-title").textContent = title;
    $("closed-text").textContent = text;
    show("closed");
  }

  const say = (text) => { $("live").textContent = text; };

  function alarm(text) {
    $("alert").textContent = text;
    $("alert").hidden = false;
  }

  function quiet() {
    $("alert").hidden = true;
  }

  function note(text) {
    $("hint").dataset.note = text;
    $("hint").textContent = text || (view === "trial" ? todo() : "");
    if (text) {
      say(text);
      setTimeout(() => {
        if ($("hint").dataset.note === text) note("");
      }, 2500);
    }
  }

  // What is clicked and typed

  function space() {
    if (queue.length) stop();
    else if (view === "intro") play(["w"]);
    else if (unheard().length) play(unheard(), true);
    else play(isPair() ? ["r", chosen] : ["a", "b"]);
  }

  function pick(side) {
    if (queue[0] === side && !player.paused) stop();
    else play([side]);
  }

  for (const button of all(".play")) button.addEventListener("click", () => pick(button.dataset.side));
  for (const button of all(".scale button")) {
    button.addEventListener("click", () => score(button.closest(".scale").dataset.side, Number(button.dataset.score)));
  }
  for (const button of all("[data-noticed]")) button.addEventListener("click", () => notice(button.dataset.noticed === "true"));
  for (const button of all("[data-identity]")) button.addEventListener("click", () => decide(button.dataset.identity === "true"));
  $("begin").addEventListener("click", forward);
  $("calls-begin").addEventListener("click", forward);
  $("next").addEventListener("click", forward);
  $("back").addEventListener("click", back);
  $("question-back").addEventListener("click", back);
  $("take").addEventListener("click", () => sit(true));
  $("finish").addEventListener("click", async () => {
    $("finish").disabled = true;
    await attempt(async () => {
      await ask("finish", { identity_matches: identity });
      identity = null;
      quiet();
    });
    await refresh().catch(() => {});
  });
  $("second").addEventListener("click", async () => {
    $("second").disabled = true;
    const begun = await attempt(() => ask("second-pass", {}));
    $("second").disabled = false;
    if (begun) {
      blobs.clear();
      $("result").open = false;
      await enter();
    }
  });
  $("end").addEventListener("click", () => attempt(async () => {
    await ask("end", {});
    close("That was it", "You can close this window. The verdict is where you typed the command, and in the run's report.");
  }));
  $("stop").addEventListener("click", () => attempt(async () => {
    await ask("end", {});
    close("Stopped for today", "Every answer is saved. The same command goes on from here, in the same order.");
  }));
  $("result").addEventListener("toggle", () => {
    if ($("result").open) attempt(async () => {
      const { means, identity_matches } = await ask("result");
      $("result").querySelector("tbody").replaceChildren(...Object.entries(means).map(([host, mean]) => {
        const row = document.createElement("tr");
        for (const [kind, text] of [["th", host], ["td", mean.toFixed(2)]]) {
          const cell = row.appendChild(document.createElement(kind));
          cell.textContent = text;
          if (kind === "td") cell.className = "n";
        }
        return row;
      }));
      $("identity").textContent = identity_matches ? "All in all: the same voice." : "All in all: not the same voice.";
    });
  });

  function decide(value) {
    identity = value;
    draw();
    $("finish").focus();
  }

  const KEYS = { " ": space, ArrowLeft: back, ArrowRight: forward, Escape: stop };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !["intro", "trial", "calls", "question"].includes(view)) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    let act = KEYS[key];
    if (key === " " && !["intro", "trial"].includes(view)) act = undefined;
    if (view === "trial" && sides().includes(key)) act = () => pick(key);
    if (view === "trial" && isPair() && "12345".includes(key)) act = () => score(chosen, Number(key));
    if (view === "trial" && !isPair() && "yn".includes(key)) act = () => notice(key === "y");
    if (view === "question" && "yn".includes(key)) act = () => decide(key === "y");
    if (!act) return;
    event.preventDefault();
    if (!event.repeat) act();
  });
  document.addEventListener("keyup", (event) => {  // a button would take the space for a click
    if (event.key === " " && ["intro", "trial"].includes(view)) event.preventDefault();
  });
  window.addEventListener("pagehide", () => {
    fetch("leave", {
      method: "POST", keepalive: true, headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ window: me }),
    }).catch(() => {});
  });

  sit();
  setInterval(sit, SEAT_MS);
})();
