"""Write the toy world's text and tasks."""

from dass.standins.writing import write_world as world

__all__ = ["world"]
