"""``python -m dass.config --write`` or ``--check``: the files that follow from the classes here."""

import argparse
import sys
from pathlib import Path

from dass.config.reference import outdated
from dass.runtime.files import write_text


def main() -> int:
    """Write config/schema.json and docs/config.md, or check them; run in the repository's root."""
    parser = argparse.ArgumentParser(prog="python -m dass.config", description=main.__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="write those that are out of date")
    action.add_argument("--check", action="store_true", help="fail if one is out of date")
    options = parser.parse_args()
    if not Path("config").is_dir():
        parser.error("there is no folder config here; run it in the repository's root")
    stale = outdated(Path())
    for name, content in stale.items():
        if options.write:
            write_text(name, content)
            print(f"wrote {name}")
        else:
            print(f"{name} is out of date; run: python -m dass.config --write", file=sys.stderr)
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
