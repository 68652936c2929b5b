"""The engine on a captured graph, while it grows beside the one that replays."""
