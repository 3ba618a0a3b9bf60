"use strict";
// Draws a timeline under every video and keeps it in step with the player.
// Times are seconds. A segment is {start, end, label, score}; the score of a true segment is null.

// Okabe and Ito's palette, told apart by colour-blind readers; its yellow is darkened to show on white.
const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b3a000", "#8a8f98"];
const MAX_ROWS = 4; // rows of overlapping predictions in a lane; what does not fit lies over the last one
const FIRST_SHARE = 0.3; // the page opens with what scores at least this share of its best

const page = JSON.parse(document.getElementById("data").textContent);
const tooltip = document.getElementById("tooltip");
const threshold = document.getElementById("threshold");
const find = document.getElementById("find");

const cards = [...document.querySelectorAll(".card")].map((element, i) => {
  const { duration, truth, predictions } = page.videos[i];
  const video = element.querySelector("video");
  return {
    element,
    video,
    duration,
    source: video.getAttribute("src"),
    timeline: element.querySelector(".timeline"),
    truth: truth.map(([start, end, label]) => ({ start, end, label, score: null })),
    predictions: predictions.map(([start, end, label, score]) => ({ start, end, label, score })),
    bars: [], // {segment, button} of what is drawn, in order of time
    playhead: null, // null until the timeline is drawn
    resumeAt: 0, // where an unloaded player was
  };
});
const bestScore = Math.max(0, ...cards.map((card) => Math.max(0, ...card.predictions.map((p) => p.score)))) || 1;

// ---- words and colours

function make(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text; // never innerHTML: labels and names are other people's text
  return element;
}

function formatTime(seconds, digits = 1) {
  const units = Math.round(seconds * 10 ** digits);
  const whole = Math.floor(units / 10 ** digits);
  const minutes = Math.floor(whole / 60);
  const parts = minutes >= 60 ? [Math.floor(minutes / 60), minutes % 60, whole % 60] : [minutes, whole % 60];
  const clock = parts.map((part, i) => (i ? String(part).padStart(2, "0") : String(part))).join(":");
  return digits ? `${clock}.${String(units % 10 ** digits).padStart(digits, "0")}` : clock;
}

function formatScore(score) {
  return score >= 0.1 || score === 0 ? score.toFixed(2) : score.toPrecision(2);
}

function colour(label) {
  return COLOURS[label % COLOURS.length];
}

function describe({ start, end, label, score }) {
  const kind = score === null ? "true segment" : `predicted, score ${formatScore(score)}`;
  return [page.labels[label], `${formatTime(start)} – ${formatTime(end)} (${(end - start).toFixed(1)} s)`, kind];
}

// ---- drawing a timeline

// Rows such that no two segments of a row overlap. The best come first, so that a higher threshold moves nothing.
function packRows(segments) {
  const rows = [];
  return segments.map((segment) => {
    let row = rows.findIndex((taken) => taken.every((other) => segment.end <= other.start || segment.start >= other.end));
    if (row < 0) row = rows.length < MAX_ROWS ? rows.push([]) - 1 : MAX_ROWS - 1;
    rows[row].push(segment);
    return row;
  });
}

function makeBar(card, segment, row) {
  const button = make("button", segment.score === null ? "segment true" : "segment predicted");
  const start = Math.min(segment.start, card.duration);
  button.type = "button";
  button.tabIndex = -1;
  button.setAttribute("aria-label", describe(segment).join(", "));
  button.style.left = `${(100 * start) / card.duration}%`;
  button.style.width = `${(100 * (Math.min(segment.end, card.duration) - start)) / card.duration}%`;
  button.style.setProperty("--row", row);
  button.style.setProperty("--colour", colour(segment.label));
  button.style.setProperty("--strength", 0.3 + 0.7 * Math.min(1, (segment.score ?? bestScore) / bestScore));
  button.addEventListener("click", () => playFrom(card, segment.start));
  return { segment, button, row };
}

// A lane is one action of one video: its true segments in the first row, its predictions below them.
function makeLane(card, label) {
  const truth = card.truth.filter((segment) => segment.label === label);
  const predictions = card.predictions.filter((segment) => segment.label === label).sort((a, b) => b.score - a.score);
  const offset = truth.length ? 1 : 0;
  const bars = truth.map((segment) => makeBar(card, segment, 0));
  packRows(predictions).forEach((row, i) => bars.push(makeBar(card, predictions[i], offset + row)));

  const lane = make("div", "lane");
  const name = make("span", "name", page.labels[label]);
  const track = make("div", "track");
  name.title = page.labels[label];
  track.append(...bars.map((bar) => bar.button).reverse()); // what is appended last lies on top: the best
  track.addEventListener("click", (event) => {
    if (event.target === track) seek(card, (card.duration * event.offsetX) / track.clientWidth);
  });
  lane.append(name, track);
  return { lane, track, bars };
}

function tickStep(duration) {
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
  return steps.find((step) => duration / step <= 5) ?? 3600 * Math.ceil(duration / 3600 / 5);
}

function makeAxis(duration) {
  const axis = make("div", "axis");
  const scale = make("div", "");
  const step = tickStep(duration);
  for (let i = 0; i * step <= duration * 0.97; i++) {
    const tick = make("span", "", formatTime(i * step, step < 1 ? 1 : 0));
    tick.style.left = `${(100 * i * step) / duration}%`;
    scale.append(tick);
  }
  axis.append(make("span", ""), scale);
  return axis;
}

function drawTimeline(card) {
  const labels = new Set([...card.truth, ...[...card.predictions].sort((a, b) => b.score - a.score)].map((s) => s.label));
  const lanes = make("div", "lanes");
  card.lanes = [...labels].map((label) => makeLane(card, label));
  card.bars = card.lanes.flatMap(({ bars }) => bars).sort((a, b) => a.segment.start - b.segment.start);
  card.playhead = make("div", "playhead");
  card.summary = make("p", "summary");
  lanes.style.setProperty("--tick", `${(100 * tickStep(card.duration)) / card.duration}%`);
  lanes.append(...card.lanes.map(({ lane }) => lane), makeAxis(card.duration), card.playhead);
  lanes.addEventListener("keydown", (event) => moveFocus(card, event));
  card.timeline.setAttribute("role", "group");
  card.timeline.setAttribute("aria-label", "Segments");
  card.timeline.append(card.summary, lanes);
  showScores(card);
  movePlayhead(card);
}

// ---- what is shown

function leastScore() {
  return (bestScore * threshold.valueAsNumber) / 100;
}

function showScores(card) {
  if (!card.playhead) return;
  const least = leastScore();
  const isShown = ({ score }) => score === null || score >= least;
  for (const { lane, track, bars } of card.lanes) {
    const shown = bars.filter(({ segment, button }) => !(button.hidden = !isShown(segment)));
    lane.hidden = !shown.length;
    track.style.setProperty("--rows", Math.max(1, ...shown.map(({ row }) => row + 1)));
  }
  const shown = card.predictions.filter(isShown).length;
  const truth = card.truth.length ? `${card.truth.length} true · ` : "";
  card.summary.textContent = `${truth}${shown} of ${card.predictions.length} predicted`;
  makeReachable(card);
}

function applyThreshold() {
  document.getElementById("threshold-value").textContent = formatScore(leastScore());
  cards.forEach(showScores);
}

function applyFind() {
  const wanted = find.value.trim().toLowerCase();
  let shown = 0;
  for (const card of cards) {
    const labels = [...card.truth, ...card.predictions.filter((p) => p.score >= leastScore())];
    const words = [card.element.querySelector("h2").textContent, ...labels.map((s) => page.labels[s.label])];
    card.element.hidden = !words.some((word) => word.toLowerCase().includes(wanted));
    shown += !card.element.hidden;
  }
  const total = `${cards.length} video${cards.length === 1 ? "" : "s"}`;
  document.getElementById("count").textContent = shown < cards.length ? `${shown} of ${total}` : total;
}

function drawLegend() {
  const item = (className, barClass, text, label) => {
    const element = make("li", className);
    const swatch = make("i", barClass);
    if (label !== undefined) swatch.style.setProperty("--colour", colour(label));
    element.append(swatch, text);
    return element;
  };
  const keys = cards.some((card) => card.truth.length)
    ? [item("key", "true", "true"), item("key", "", "predicted, stronger = higher score")]
    : [item("key", "", "predicted, stronger = higher score")];
  const labels = page.labels.map((label, i) => item("", "", label, i));
  document.getElementById("legend").append(...keys, ...labels);
}

// ---- the player

function seek(card, seconds) {
  load(card);
  const jump = () => {
    card.video.currentTime = Math.max(0, Math.min(seconds, card.video.duration || card.duration));
    movePlayhead(card);
  };
  if (card.video.readyState) jump();
  else card.video.addEventListener("loadedmetadata", jump, { once: true });
}

function playFrom(card, seconds) {
  seek(card, seconds);
  card.video.play().catch(() => {}); // a file that cannot be played has said so through its error event
}

function movePlayhead(card) {
  if (!card.playhead) return;
  const now = card.video.readyState ? card.video.currentTime : card.resumeAt;
  card.playhead.style.setProperty("--now", Math.min(1, now / card.duration));
  for (const { segment, button } of card.bars) {
    button.classList.toggle("now", now > 0 && segment.start <= now && now < segment.end);
  }
}

function followPlayback(card) {
  movePlayhead(card);
  if (!card.video.paused && !card.video.ended) requestAnimationFrame(() => followPlayback(card));
}

function connectPlayer(card) {
  card.video.addEventListener("play", () => {
    for (const other of cards) if (other !== card) other.video.pause();
    followPlayback(card);
  });
  for (const event of ["seeking", "seeked", "timeupdate"]) card.video.addEventListener(event, () => movePlayhead(card));
  card.video.addEventListener("error", () => {
    if (card.video.hasAttribute("src")) sayTrouble(card, "this browser cannot play it, or it is not where it was");
  });
  card.video.addEventListener("loadedmetadata", () => {
    if (!card.video.videoWidth) sayTrouble(card, "this browser cannot show its pictures");
  });
}

function sayTrouble(card, what) {
  const note = card.element.querySelector(".trouble");
  const file = decodeURIComponent(card.source.split("/").pop());
  note.textContent = `${file}: ${what}. Browsers play H.264 in MP4: ffmpeg -i FILE -c:v libx264 -pix_fmt yuv420p FILE.mp4`;
  note.hidden = false;
}

// Browsers allow some tens of loaded players on a page, so a video is loaded near the window and unloaded away from it.
function load(card) {
  if (!card.video.hasAttribute("src")) {
    card.video.src = card.source;
    if (card.resumeAt) seek(card, card.resumeAt);
  }
  card.video.preload = "metadata";
}

function unload(card) {
  if (!card.video.paused || card.video.preload === "none") return;
  card.resumeAt = card.video.currentTime;
  card.video.preload = "none";
  card.video.removeAttribute("src");
  card.video.load();
}

// ---- keyboard and pointer

// One stop of the Tab key a timeline; the arrow keys go on from there.
function makeReachable(card) {
  const shown = card.bars.filter(({ button }) => !button.hidden);
  const current = shown.find(({ button }) => button === document.activeElement) ?? shown[0];
  for (const bar of card.bars) bar.button.tabIndex = bar === current ? 0 : -1;
}

function moveFocus(card, event) {
  const shown = card.bars.filter(({ button }) => !button.hidden).map(({ button }) => button);
  const here = shown.indexOf(document.activeElement);
  const next = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: shown.length - 1 }[event.key];
  if (here < 0 || next === undefined) return;
  event.preventDefault();
  shown[Math.max(0, Math.min(next, shown.length - 1))].focus();
  makeReachable(card);
}

function showTooltip(button, segment) {
  const [label, times, kind] = describe(segment);
  tooltip.replaceChildren(make("b", "", label), make("span", "", times), make("span", "", kind));
  tooltip.hidden = false;
  const bar = button.getBoundingClientRect();
  const above = bar.top - tooltip.offsetHeight - 6;
  const left = bar.left + bar.width / 2 - tooltip.offsetWidth / 2;
  const rightmost = document.documentElement.clientWidth - tooltip.offsetWidth - 4;
  tooltip.style.top = `${scrollY + (above > 0 ? above : bar.bottom + 6)}px`;
  tooltip.style.left = `${scrollX + Math.max(4, Math.min(left, rightmost))}px`;
}

function connectTooltip(card) {
  const show = (event) => {
    const bar = card.bars.find(({ button }) => button === event.target);
    if (bar) showTooltip(bar.button, bar.segment);
  };
  const hide = () => (tooltip.hidden = true);
  for (const event of ["pointerover", "focusin"]) card.timeline.addEventListener(event, show);
  for (const event of ["pointerout", "focusout"]) card.timeline.addEventListener(event, hide);
}

// ---- the page

function start() {
  const near = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        const card = cards.find(({ element }) => element === target);
        if (isIntersecting && !card.playhead) drawTimeline(card);
        (isIntersecting ? load : unload)(card);
      }
    },
    { rootMargin: "50%" },
  );
  threshold.value = 100 * FIRST_SHARE;
  threshold.addEventListener("input", applyThreshold);
  threshold.addEventListener("change", applyFind);
  find.addEventListener("input", applyFind);
  drawLegend();
  applyThreshold();
  applyFind();
  for (const card of cards) {
    connectPlayer(card);
    connectTooltip(card);
    near.observe(card.element);
  }
}

start();
