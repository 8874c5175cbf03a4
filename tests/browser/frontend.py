"""ComfyUI's frontend 1.47 as a page object: load a workflow, look for complaints, run it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from ..comfyui.server import Comfy

READY = "() => window.app?.extensionManager && window.app.isGraphReady && window.comfyAPI?.api?.api"
WATCH_TOASTS = """() => {
    window.wanToasts = [];
    window.app.extensionManager.toast.$onAction(action => window.wanToasts.push(JSON.stringify(action.args)));
}"""
NODES = """() => window.app.graph._nodes.map(node => ({
    id: String(node.id), type: node.type, known: Boolean(LiteGraph.registered_node_types[node.type]),
    blamed: Boolean(node.has_errors), box: Array.from(node.boundingRect ?? [...node.pos, ...node.size]),
}))"""
SET_WIDGETS = """changes => {
    let count = 0;
    for (const node of window.app.graph._nodes)
        for (const widget of node.widgets ?? [])
            for (const [type, name, value] of changes)
                if (node.type === type && widget.name === name) { widget.value = value; count += 1; }
    return count;
}"""
WATCH_RUN = """() => {
    window.wanEnd = null;
    for (const name of ["execution_success", "execution_error", "execution_interrupted"])
        window.comfyAPI.api.api.addEventListener(name, event => { window.wanEnd = [name, event.detail]; });
}"""
COMPLAINTS = ("[data-testid=error-overlay]", "[role=dialog]", ".p-toast-message-error")
VIDEO = "() => [...document.querySelectorAll('video')].find(video => video.readyState >= 2)"
VIDEO_FACTS = "video => ({width: video.videoWidth, height: video.videoHeight, seconds: video.duration})"


class Frontend:
    """One open frontend.

    Args:
        page: an empty page.
        comfy: the server.
    """

    def __init__(self, page: "Page", comfy: "Comfy") -> None:
        self.page = page
        self.page_errors: list[str] = []
        page.on("pageerror", lambda error: self.page_errors.append(str(error)))
        # Otherwise the templates open over the graph, as they do for every new user.
        comfy.client.post("/settings", {"Comfy.TutorialCompleted": True})
        page.goto(comfy.url)
        page.wait_for_function(READY, timeout=120_000)
        page.evaluate(WATCH_TOASTS)

    def load(self, workflow: dict[str, Any]) -> None:
        """Open a workflow in the frontend's own format and let its checks finish."""
        self.page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
        self.page.wait_for_function("() => window.app.graph._nodes.length > 0")
        self.page.wait_for_timeout(2000)

    def nodes(self) -> list[dict[str, Any]]:
        """The graph's nodes: id, type, whether it is known, whether it is blamed, its box (x, y, w, h)."""
        return self.page.evaluate(NODES)

    def complaints(self) -> list[str]:
        """Everything the user is bothered with: unknown or blamed nodes, dialogs, toasts, script errors."""
        unknown = [f"unknown node {node['type']}" for node in self.nodes() if not node["known"]]
        blamed = [f"error mark on {node['type']}" for node in self.nodes() if node["blamed"]]
        shown = [
            place.inner_text()
            for css in COMPLAINTS
            for place in self.page.locator(css).all()
            if place.is_visible()
        ]
        toasts = [toast for toast in self.page.evaluate("() => window.wanToasts") if "error" in toast.lower()]
        return [*unknown, *blamed, *shown, *toasts, *self.page_errors]

    def set_widgets(self, changes: list[tuple[str, str, Any]]) -> int:
        """Set widgets given as (node class, widget, value); returns how many were found."""
        return self.page.evaluate(SET_WIDGETS, changes)

    def prompt(self) -> dict[str, Any]:
        """The graph in API format, as the frontend exports it."""
        return self.page.evaluate("async () => (await window.app.graphToPrompt()).output")

    def run(self, *, seconds: float) -> tuple[str, dict[str, Any]]:
        """Press "Run" and wait for the end: the name of the last event and its content."""
        self.page.evaluate(WATCH_RUN)
        self.page.locator("[data-testid=queue-button]").click()
        self.page.wait_for_function("() => window.wanEnd", timeout=1000 * seconds)
        name, content = self.page.evaluate("() => window.wanEnd")
        return name, content

    def shown_video(self) -> dict[str, float]:
        """Width, height and length of the video that a node shows."""
        return self.page.wait_for_function(VIDEO, timeout=30_000).evaluate(VIDEO_FACTS)
