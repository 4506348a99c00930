"use strict";
// Draws every chart of the page. `ast: true` evaluates expressions without eval, which the page's
// Content-Security-Policy forbids.
(function () {
  const data = JSON.parse(document.getElementById("chart-data").textContent);
  const options = {
    mode: "vega-lite",
    renderer: "svg",
    ast: true,
    actions: false,
    config: data.config,
    tooltip: { disableDefaultStyle: true },
  };
  // What a link leads to is opened, and a chart that was drawn while it was closed gets its width.
  function openTarget() {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    const fold = target && (target.closest("details") || target.querySelector(":scope > details"));
    if (fold) fold.open = true;
  }
  addEventListener("hashchange", openTarget);
  openTarget();
  for (const fold of document.querySelectorAll("details")) {
    fold.addEventListener("toggle", () => dispatchEvent(new Event("resize")));
  }
  for (const [id, spec] of Object.entries(data.specs)) {
    const box = document.getElementById(id);
    vegaEmbed(box, spec, options).then(
      function () {
        // The box around it is labelled; the drawing itself would be an image without a name.
        for (const svg of box.querySelectorAll("svg")) {
          svg.removeAttribute("role");
          svg.setAttribute("aria-hidden", "true");
        }
      },
      function (error) {
        box.textContent = "This chart could not be drawn: " + error.message;
        console.error(id, error);
      },
    );
  }
})();
