"""Every board, in the order in which the links between them are shown."""

from dashboards.board import Board, render
from dashboards.latency import LATENCY
from dashboards.overview import OVERVIEW
from dashboards.process import PROCESS
from dashboards.providers import PROVIDERS
from dashboards.spend import SPEND

BOARDS: tuple[Board, ...] = (OVERVIEW, LATENCY, SPEND, PROVIDERS, PROCESS)


def render_all() -> dict[str, str]:
    """File name -> JSON text of every board."""
    return {f"{board.name}.json": render(board) for board in BOARDS}
