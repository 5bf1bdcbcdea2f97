"""The layout in which the embedded MLflow's pages open: that for models, not the one for prompts.

Experiments say of which kind they are, but the pages go by what the browser remembers. So a page
is sent with a script that answers what the browser has no memory of.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["install"]

#: What MLflow's pages find where a browser remembers nothing of them: the layout for models, no
#: assistant over a third of the page, and the errors among the columns of a list of runs.
_SCRIPT = """<script>
const unseen = [
  [/^mlflow.workflowType_v1$/, '"machine_learning"'],
  [/^mlflow.assistant.fab.autoOpenedOnFirstLoad_v1$/, "true"],
  [/ExperimentPage-.*-ReactComponentState$/, JSON.stringify({selectedColumns: [
    "attributes.`Dataset`", "params.`family`", "metrics.`test/mae`",
    "metrics.`test/pairwise_accuracy`", "metrics.`validation/mae`"]})]];
const remembered = Storage.prototype.getItem;
Storage.prototype.getItem = function (key) {
  const found = unseen.find(([known]) => known.test(key));
  return remembered.call(this, key) ?? (found ? found[1] : null);
};
</script>"""


def install(app: Any) -> None:
    """Let the pages of MLflow's Flask `app` open in that layout, where nobody chose another."""
    index = Path(app.static_folder, "index.html")
    page = index.read_text("utf-8") if index.is_file() else ""  # it can be installed without any

    @app.before_request  # type: ignore[untyped-decorator]
    def open_page() -> Any:
        from flask import Response, request

        if request.path != "/" or not page:
            return None
        return Response(page.replace("<head>", f"<head>{_SCRIPT}", 1), mimetype="text/html")
