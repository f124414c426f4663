"""What pyproject.toml cannot say: the wheel carries the notebooks, of which there is one copy.

They lie in chapters/ and exercises/, where authors and readers of a checkout look for them; in the
wheel they become irlbook/book/chapters/ and irlbook/book/exercises/.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PARTS = ("chapters", "exercises")


def notebooks() -> list[Path]:
    return [path for part in PARTS for path in sorted(Path(part).glob("*.ipynb"))]


class BuildWithBook(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return  # an editable installation reads the checkout itself
        shutil.rmtree(Path(self.build_lib, "irlbook", "book"), ignore_errors=True)
        for source, target in zip(notebooks(), self._targets(), strict=True):
            self.mkpath(str(Path(target).parent))
            self.copy_file(str(source), target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return super().get_outputs(include_bytecode) + (
            [] if self.editable_mode else self._targets()
        )

    def get_source_files(self) -> list[str]:
        return super().get_source_files() + [path.as_posix() for path in notebooks()]

    def _targets(self) -> list[str]:
        return [str(Path(self.build_lib, "irlbook", "book", path)) for path in notebooks()]


setup(cmdclass={"build_py": BuildWithBook})
