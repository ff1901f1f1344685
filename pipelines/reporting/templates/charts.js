// Draws the page's charts: what they show is in each plot's data-chart, how they look is here and in the style sheet.
"use strict";
(() => {
  const narrow = () => window.innerWidth < 640;
  const text = { color: "var(--soft)", fontFamily: "system-ui, sans-serif", fontSize: 12 };
  const ruler = { lineStyle: { color: "var(--line)" } };
  const number = (value) => (typeof value === "number" ? String(Number(value.toPrecision(4))) : String(value));
  const tip = {
    backgroundColor: "var(--card)", borderColor: "var(--line)", padding: 8, confine: true, appendTo: "body",
    textStyle: { color: "var(--ink)", fontSize: 13 }, transitionDuration: 0,
  };

  const axis = (given, more) => ({
    ...given, nameTextStyle: text, axisLabel: { ...text, hideOverlap: true, formatter: number, ...(more.axisLabel || {}) },
    axisLine: ruler, axisTick: { show: false }, minorTick: { show: false }, splitLine: ruler, ...more.rest,
  });

  const lines = (given) => ({
    tooltip: { ...tip, trigger: "axis", valueFormatter: number, axisPointer: { lineStyle: { color: "var(--quiet)" } } },
    legend: { show: given.legend !== false && given.series.length > 1, top: 0, left: 0, textStyle: text, itemWidth: 28, inactiveColor: "var(--line)", type: "plain" },
    grid: { left: 4, right: 20, top: given.series.length > 1 && given.legend !== false ? 52 : 28, bottom: 44, containLabel: true },
    xAxis: axis(given.xAxis, { rest: { nameLocation: "middle", nameGap: 24, splitLine: { show: false } } }),
    yAxis: axis(given.yAxis, { rest: { nameLocation: "end", nameGap: 10, nameTextStyle: { ...text, align: "left" } } }),
    dataZoom: [
      { type: "inside", zoomOnMouseWheel: "ctrl", moveOnMouseMove: false, preventDefaultMouseMove: false, filterMode: "none" },
      { type: "slider", height: 12, bottom: 4, showDetail: false, showDataShadow: false, brushSelect: false, filterMode: "none",
        borderColor: "transparent", backgroundColor: "var(--track)", fillerColor: "var(--line)",
        handleStyle: { color: "var(--card)", borderColor: "var(--quiet)" }, moveHandleSize: 0 },
    ],
    series: given.series,
  });

  const parallel = (given) => {
    const upright = narrow();  // axes below each other, where there is no room beside
    return {
      tooltip: {
        ...tip, trigger: "item",
        formatter: ({ name, value }) => [name, ...given.parallelAxis.map((one, i) => `${one.name} ${number(value[i])}`)]
          .map(echarts.format.encodeHTML).join("<br>"),
      },
      legend: { top: 0, left: 0, textStyle: text, itemWidth: 28, inactiveColor: "var(--line)" },
      parallel: upright ? { layout: "vertical", left: 20, right: 30, top: 90, bottom: 30 } : { left: 60, right: 70, top: 64, bottom: 24 },
      parallelAxis: given.parallelAxis.map((one) => ({
        ...axis(one, { axisLabel: { backgroundColor: "var(--card)", padding: [1, 3] } }), splitLine: { show: false }, nameGap: 12, axisLine: { lineStyle: { color: "var(--quiet)" } },
        nameLocation: upright ? "start" : "end",
        nameTextStyle: upright ? { ...text, align: "left", verticalAlign: "bottom", padding: [0, 3, 10, 3] } : text,
      })),
      series: given.series.map((one) => ({ ...one, emphasis: { lineStyle: { width: 5, opacity: 1 } } })),
    };
  };

  const drawn = [...document.querySelectorAll("[data-chart]")].map((plot) => {
    const given = JSON.parse(plot.dataset.chart);
    const chart = echarts.init(plot, null, { renderer: "svg" });
    const draw = () => {
      const look = given.kind === "parallel" ? parallel : lines;
      chart.setOption({ animation: false, color: ["var(--c1)"], textStyle: text, ...look(given) }, true);
      // Paper is narrower than most windows: there the style sheet scales the drawing to its place.
      plot.querySelector("svg").setAttribute("viewBox", `0 0 ${chart.getWidth()} ${chart.getHeight()}`);
    };
    draw();
    return { chart, draw };
  });

  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;  // a telephone's address bar, come and gone
    width = window.innerWidth;
    drawn.forEach(({ chart, draw }) => { chart.resize(); draw(); });
  });
})();
