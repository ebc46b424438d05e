"""A pipe.yaml that was read and checked: the spec, and what surrounds it. Everything that can be wrong with it was found here."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pipeline.checks import check_pipeline
from pipeline.conditions import Facts, path_matches
from pipeline.config.load import Surroundings, find_pipefile, load_pipeline, sorted_problems
from pipeline.spec import InvalidPipeline, PipelineSpec
from registry_client.values import frozen


@frozen(kw_only=True)
class Loaded:
    """A pipe.yaml that was read and checked."""

    spec: PipelineSpec
    surroundings: Surroundings

    @property
    def facts(self) -> Facts:
        """For conditions; the changed files are asked of git only when a condition looks at them."""
        spec, git = self.spec, self.surroundings.git
        conditions = [image.when for image in spec.images] + [stage.when for stage in spec.stages]
        conditions += [environment.when for environment in spec.environments]
        asked = any(clause.changes for condition in conditions for clause in condition.clauses)
        return Facts(self.lookup, git.changed if asked else None, self._exists)

    def lookup(self, path: str) -> str | None:
        """A bare word in `if:` is a variable."""
        return self.surroundings.lookup(path)

    def _exists(self, pattern: str) -> bool:
        root = self.spec.root
        for directory, names, files in os.walk(root):
            names[:] = [name for name in names if name != ".git"]
            for name in (*files, *names):
                if path_matches(os.path.relpath(os.path.join(directory, name), root), pattern):
                    return True
        return False


def load(
    environment: Mapping[str, str],
    *,
    file: str = "",
    directory: str = ".",
    home: str = "",
    given: Mapping[str, str] | None = None,
) -> Loaded:
    """Read and check the pipe.yaml; InvalidPipeline holds all that is wrong with it.

    `home` is the work tree that `directory` is a copy of: git and `.env` are asked there.
    """
    path = find_pipefile(directory, file)
    surroundings = Surroundings(home or os.path.dirname(os.path.abspath(path)), environment, given)
    spec = load_pipeline(path, surroundings)
    problems = check_pipeline(spec)
    if problems:
        raise InvalidPipeline(sorted_problems(list(problems)))
    return Loaded(spec=spec, surroundings=surroundings)
