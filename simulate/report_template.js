"use strict";
(function () {
  var data = JSON.parse(document.getElementById("data").textContent);
  var body = document.body, all = function (q) { return Array.prototype.slice.call(document.querySelectorAll(q)); };
  window.addEventListener("error", function (e) { body.dataset.fault = e.message; });
  var run = document.querySelector("details.run"), wasOpen = false;
  window.addEventListener("beforeprint", function () { wasOpen = run.open; run.open = true; });
  window.addEventListener("afterprint", function () { run.open = wasOpen; });
  if (!data.slices.length) { body.dataset.ready = "1"; return; }

  var views = all("canvas[data-view]"), play = document.getElementById("play"), range = document.getElementById("frame");
  var where = document.getElementById("where"), state = document.getElementById("state");
  var current = null, asked = -1, frame = 0, shown = -1, speed = 1, playing = false, phase = 0, before = 0;

  // The colours of the error: 256 of them, between the anchors that the page was given.
  var anchors = data.inferno.map(function (c) { return [0, 2, 4].map(function (i) { return parseInt(c.substr(i, 2), 16); }); });
  var lut = [];
  for (var g = 0; g < 256; g++) {
    var at = g / 255 * (anchors.length - 1), low = Math.min(Math.floor(at), anchors.length - 2);
    lut.push(anchors[low].map(function (v, c) { return Math.round(v + (anchors[low + 1][c] - v) * (at - low)); }));
  }
  function coloured(image) {
    var sheet = document.createElement("canvas");
    sheet.width = image.naturalWidth; sheet.height = image.naturalHeight;
    var context = sheet.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    var pixels = context.getImageData(0, 0, sheet.width, sheet.height), p = pixels.data;
    for (var i = 0; i < p.length; i += 4) { var c = lut[p[i]]; p[i] = c[0]; p[i + 1] = c[1]; p[i + 2] = c[2]; }
    context.putImageData(pixels, 0, 0);
    return sheet;
  }
  function load(source) {
    return new Promise(function (done, failed) {
      var image = new Image();
      image.onload = function () { done(image); };
      image.onerror = function () { failed(new Error("an image of this page cannot be decoded")); };
      image.src = source;
    });
  }
  function draw() {
    var s = current.slice, column = frame % s.across, row = Math.floor(frame / s.across);
    views.forEach(function (canvas) {
      var sheet = current.sheets[canvas.dataset.view], context = canvas.getContext("2d");
      context.clearRect(0, 0, canvas.width, canvas.height);
      if (sheet) context.drawImage(sheet, column * s.cols, row * s.rows, s.cols, s.rows, 0, 0, s.cols, s.rows);
    });
    range.value = frame;
    where.textContent = "frame " + (frame + 1) + " of " + s.frames + " · " + Math.round((frame + 0.5) / s.frames * data.rr * 1000) + " ms";
    shown = frame;
  }
  function select(i) {
    asked = i;
    all("[data-pick]").forEach(function (b) { b.setAttribute("aria-pressed", String(+b.dataset.pick === i)); });
    all("[data-row]").forEach(function (r) { r.classList.toggle("on", +r.dataset.row === i); });
    all("[data-slice]").forEach(function (e) {
      var on = +e.dataset.slice === i;
      e.classList.toggle("on", on);
      if (on && e.tagName.toLowerCase() === "g") e.parentNode.appendChild(e); // on top of the others
    });
    var strip = document.querySelector(".strip"), thumb = strip.children[i];
    strip.scrollLeft = thumb.offsetLeft - strip.offsetLeft - (strip.clientWidth - thumb.offsetWidth) / 2;
    var s = data.slices[i], names = ["recon", "truth", "error"].filter(function (n) { return s[n]; });
    all("[data-chosen]").forEach(function (e) { e.textContent = s.index; });
    return Promise.all(names.map(function (n) { return load(s[n]); })).then(function (images) {
      if (asked !== i) return;
      var sheets = {};
      names.forEach(function (n, k) { sheets[n] = n === "error" ? coloured(images[k]) : images[k]; });
      current = { slice: s, sheets: sheets };
      views.forEach(function (c) { if (c.width !== s.cols || c.height !== s.rows) { c.width = s.cols; c.height = s.rows; } });
      range.max = s.frames - 1;
      frame = Math.min(frame, s.frames - 1);
      body.classList.toggle("one-frame", s.frames < 2);
      state.textContent = "Slice " + s.index + ", " + s.state + ".";
      draw();
    });
  }
  function tick(now) {
    if (!playing) return;
    phase = (phase + Math.min(now - before, 250) / 1000 * speed / data.rr) % 1;
    before = now;
    frame = Math.min(current.slice.frames - 1, Math.floor(phase * current.slice.frames));
    if (frame !== shown) draw();
    requestAnimationFrame(tick);
  }
  function setPlaying(on) {
    on = on && current !== null && current.slice.frames > 1;
    if (on && !playing) {
      phase = frame / current.slice.frames; before = performance.now(); playing = true;
      requestAnimationFrame(tick);
    }
    playing = on;
    play.classList.toggle("playing", on);
  }
  function show(f) {
    setPlaying(false);
    frame = (f + current.slice.frames) % current.slice.frames;
    draw();
  }

  play.addEventListener("click", function () { setPlaying(!playing); });
  range.addEventListener("input", function () { if (current) show(+range.value); });
  all("[data-pick]").forEach(function (b) {
    b.addEventListener("click", function () { shown = -1; select(+b.dataset.pick); });
  });
  all("[data-row]").forEach(function (r) { r.addEventListener("click", function () { shown = -1; select(+r.dataset.row); }); });
  all("[data-speed]").forEach(function (b) {
    b.addEventListener("click", function () {
      speed = +b.dataset.speed;
      all("[data-speed]").forEach(function (o) { o.setAttribute("aria-pressed", String(o === b)); });
    });
  });
  document.addEventListener("keydown", function (e) {
    if (!current || e.ctrlKey || e.metaKey || e.altKey) return;
    var on = e.target.closest ? e.target.closest("summary, input, #play, .speeds button") : null;
    if (e.key === " " && (!on || on === range)) { e.preventDefault(); setPlaying(!playing); }
    if ((e.key === "ArrowLeft" || e.key === "ArrowRight") && on !== range) {
      e.preventDefault(); show(frame + (e.key === "ArrowLeft" ? -1 : 1));
    }
  });

  select(data.chosen).then(function () {
    views.forEach(function (c) {
      var p = c.getContext("2d").getImageData(0, 0, c.width, c.height).data, sum = 0;
      for (var i = 0; i < p.length; i += 4) sum += p[i];
      body.dataset[c.dataset.view] = (4 * sum / p.length).toFixed(2);
    });
    body.dataset.ready = "1";
    if (!window.matchMedia("(prefers-reduced-motion: reduce)").matches) setPlaying(true);
  }).catch(function (e) { body.dataset.fault = e.message; where.textContent = e.message; });
}());
