"use strict";
// a click on a heading sorts by its column, a second one the other way round; no value comes last
document.querySelectorAll("table.sorts").forEach(function (table) {
  var body = table.tBodies[0];
  table.querySelectorAll("thead button").forEach(function (button) {
    var head = button.parentElement;
    button.addEventListener("click", function () {
      var up = head.getAttribute("aria-sort") !== "ascending";
      var place = head.cellIndex;
      table.querySelectorAll("th[aria-sort]").forEach(function (other) {
        other.removeAttribute("aria-sort");
      });
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      function key(row) {
        return row.cells[place].dataset.value;
      }
      Array.from(body.rows)
        .sort(function (a, b) {
          var x = key(a), y = key(b);
          if (x === "" || y === "") {
            return (x === "") - (y === "");
          }
          var order = head.dataset.kind === "text" ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
          return up ? order : -order;
        })
        .forEach(function (row) {
          body.appendChild(row);
        });
    });
  });
});
