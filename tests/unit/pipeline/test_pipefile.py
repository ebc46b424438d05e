"""pipe.yaml: what it may say, what becomes of it, and what every mistake looks like."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.container import Dependency
from pipeline.spec import InvalidPipeline, PipelineSpec
from registry_client.oci.config import Healthcheck
from runtime.containers.spec import Limits, Mount, PortBinding, RestartPolicy, Rlimit
from runtime.errors import InvalidInput
from tests.support import REPOSITORY
from tests.support.pipeline import loaded, schema_json

HEAD = "images: {app: {}}\n"


def spec_of(tmp_path: Path, text: str, **env: str) -> PipelineSpec:
    return loaded(tmp_path, text, env).spec


def problems(tmp_path: Path, text: str, **env: str) -> list[tuple[str, str, str]]:
    with pytest.raises(InvalidInput) as caught:
        loaded(tmp_path, text, env)
    found = caught.value.problems if isinstance(caught.value, InvalidPipeline) else (caught.value,)
    return [(f"{p.span.line}:{p.span.column}" if p.span else "", p.message, p.hint) for p in found]


MISTAKES = [
    ("stges: {}", "1:1", "unknown key `stges` in pipe.yaml", "did you mean `stages`?"),
    (HEAD + "stages:\n  unit: {image: app, rn: x}", "3:22", "unknown key `rn` in stage `unit`", "did you mean `run`?"),
    (HEAD + "stages:\n  unit: {run: x}", "3:3", "stage `unit` needs the key `image`", "name an entry"),
    (HEAD + "stages:\n  unit: {image: app, needs: [lnt]}\n  lint: {image: app}", "3:30", "needs the unknown stage `lnt`", "did you mean `lint`?"),
    (HEAD + "stages:\n  unit: {image: app, needs: [app]}", "3:30", "needs the unknown stage `app`", "`needs` names stages"),
    (HEAD + "stages:\n  unit: {image: app, timeout: soon}", "3:31", "invalid duration 'soon'", ""),
    (HEAD + "stages:\n  unit: {image: app, retry: 99}", "3:29", "99 is not between 0 and 10", ""),
    (HEAD + "stages:\n  unit: {image: app, cache: yes}", "3:29", "expected true or false, not 'yes'", "YAML 1.2 has no `yes`"),
    (HEAD + "stages:\n  unit: {image: app, matrix: {}}", "3:30", "an empty matrix", "give it an axis"),
    (HEAD + "stages:\n  unit: {image: app, matrix: {a: [1]}, env: {X: '${matrix.b}'}}", "3:49", "names the unknown axis `b`", ""),
    (HEAD + "stages:\n  unit: {image: app, env: {X: '${images.ap.digest}'}}", "3:31", "unknown image `ap`", "did you mean `app`?"),
    (HEAD + "stages:\n  unit: {image: app, env: {X: '${stages.unit.outputs.v}'}}", "3:31", "uses its own output", ""),
    (HEAD + "stages:\n  unit: {image: app, env: {X: '${stage.a.outputs.v}'}}", "3:31", "unknown context", "did you mean `stages`?"),
    (HEAD + "stages:\n  unit: {image: app, secrets: [tok]}\nsecrets: {token: {env: T}}", "3:32", "unknown secret `tok`", "did you mean `token`?"),
    ("secrets: {t: {env: A, file: b}}", "1:14", "needs exactly one source", "where it comes from"),
    (HEAD + "stages:\n  unit: {image: 'Bad Name'}", "3:17", "invalid reference 'Bad Name'", ""),
    (HEAD + "stages: {a: {image: app, run: {echo: b}}}", "2:31", "expected shell text, not a mapping", "quote a command"),
    (HEAD + "stages: {a: {image: app, if: 'git.brnch == 1'}}", "2:30", "unknown name `git.brnch` in `if`", "did you mean `branch`?"),
    (HEAD + "stages: {a: {image: app, artifacts: [reports]}}", "2:38", "'reports' is not an absolute path", ""),
    (HEAD + "stages: {a: {image: app, services: {db: {}}}}", "2:41", "service `db` needs the key `image`", ""),
    (HEAD + "stages: {a: {image: app, services: {db: {image: x, ports: ['99999:1']}}}}", "2:60", "invalid port '99999'", ""),
    (HEAD + "deploy: {p: {}}", "2:13", "environment `p` has no services", "exactly one of"),
    (HEAD + "deploy: {p: {compose: nope.yaml}}", "2:23", "no compose file nope.yaml", ""),
    (HEAD + "deploy: {p: {services: {a: {image: app, volumes: ['data:/x']}}}}", "2:25", "unknown volume `data`", "declare it"),
    (HEAD + "deploy: {p: {services: {a: {image: app, depends_on: [b]}}}}", "2:54", "depends on the unknown service `b`", ""),
    (HEAD + "deploy: {p: {services: {a: {image: app, depends_on: [b]}, b: {image: app, depends_on: [a]}}}}", "2:25", "a cycle of depends_on", ""),
    ("images: {app: {extends: bse}, base: {}}", "1:25", "extends the unknown image `bse`", "did you mean `base`?"),
    ("images: {a: {extends: b}, b: {extends: a}}", "1:23", "extends itself", ""),
    ("images: {app: {context: 1}, app: {}}", "1:29", "duplicate key `app`", "line 1"),
    ("images: {Bad: {}}", "1:10", "'Bad' is not an image name", ""),
    ("images: []", "1:9", "expected a mapping, not a list", ""),
    ("- a", "1:1", "pipe.yaml must be a mapping, not a list", ""),
    ("", "1:1", "pipe.yaml is empty", ""),
    ("name: Shop!", "1:7", "'Shop!' is not a project name", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "place", "message", "hint"), MISTAKES, ids=[m[2][:40] for m in MISTAKES])
def test_a_mistake_is_named_with_its_place_and_what_to_do(
    tmp_path: Path, text: str, place: str, message: str, hint: str
) -> None:
    found = problems(tmp_path, text)
    at, said, advice = found[0]
    assert message in said
    assert at == place
    assert hint in advice


def test_all_mistakes_are_found_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = (
        HEAD
        + "stges: {}\nstages:\n  a: {image: app, tmeout: 3}\n  b: {image: app, timeout: x, retry: y}\njobs: 0\n"
    )
    found = problems(tmp_path, text)
    assert [at.split(":")[0] for at, _, _ in found] == ["2", "4", "5", "5", "6"]


def test_a_cycle_of_needs_is_named_with_a_line(tmp_path: Path) -> None:
    from tests.support.pipeline import planned

    text = (
        HEAD
        + "stages:\n  a: {image: app, needs: [c]}\n  b: {image: app, needs: [a]}\n  c: {image: app, needs: [b]}\n"
    )
    pipeline = loaded(tmp_path, text)
    with pytest.raises(InvalidInput, match="a cycle of needs: ") as caught:
        planned(pipeline)
    assert caught.value.span is not None and 3 <= caught.value.span.line <= 5


def test_a_required_variable_that_is_not_set_is_a_mistake(tmp_path: Path) -> None:
    found = problems(tmp_path, "images: {app: {args: {V: '${VERSION:?set it}'}}}")
    assert found[0][1] == "`VERSION` is not set: set it"


def test_an_unset_variable_is_a_warning(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "images: {app: {args: {V: '${VERSION}'}}}")
    assert [text for text, _ in spec.warnings] == ["the variable `VERSION` is not set; it is empty"]


def test_variables_come_from_dotenv_then_the_process_then_the_command_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=file\nB=file\nC='fi le' # no\n")
    text = "images: {app: {args: {A: $A, B: $B, C: $C, D: $D}}}"
    spec = loaded(tmp_path, text, {"B": "process", "D": "process"}, {"D": "given"}).spec
    assert spec.images[0].args == (("A", "file"), ("B", "process"), ("C", "fi le"), ("D", "given"))


def test_an_image_extends_another_but_keeps_its_own_tags(tmp_path: Path) -> None:
    text = "images:\n  app: {target: run, args: {A: 1, B: 2}, tags: [x]}\n  test: {extends: app, target: test, args: {B: 3}}\n"
    test = spec_of(tmp_path, text).images[1]
    assert (test.target, test.args, test.tags) == ("test", (("A", "1"), ("B", "3")), ())


def test_the_name_is_the_directorys_without_what_a_name_may_not_have(tmp_path: Path) -> None:
    directory = tmp_path / "My Shop 2!"
    directory.mkdir()
    assert spec_of(directory, HEAD).name == "myshop2"


def test_the_keys_of_a_stage(tmp_path: Path) -> None:
    text = """
        images: {app: {}}
        secrets: {token: {env: T}}
        stages:
          lint: {image: app}
          unit:
            image: app
            needs: [lint, {stage: lint, optional: true, artifacts: true}]
            run: [one, two]
            matrix: {py: [3.10, "3.12"], exclude: [{py: 3.10}], max_parallel: 2, fail_fast: true}
            retry: {max: 2, when: [timeout], exit_codes: 3, backoff: 1s}
            timeout: 1m30s
            allow_failure: {exit_codes: [7, 8]}
            reports: {junit: /r/*.xml}
            artifacts: {paths: [/a/**], exclude: "*.pyc", when: on_failure}
            secrets: [token, {secret: token, env: TOKEN}, {secret: token, target: /x/y, mode: "0400"}]
            checkout: true
            cache: false
            environment: [A=1, B]
            user: 1000:1000
            mem_limit: 64m
            ulimits: {nofile: 100, nproc: {soft: 1, hard: 2}}
        """
    stage = spec_of(tmp_path, text).stages[1]
    assert [part.text for part in stage.run.parts] == ["one", "two"]
    assert stage.matrix is not None and stage.matrix.axes == (("py", ("3.10", "3.12")),)
    assert (stage.retry.max, stage.retry.when, stage.retry.exit_codes, stage.retry.backoff) == (
        2,
        ("timeout",),
        (3,),
        1.0,
    )
    assert (stage.timeout, stage.allow_failure.exit_codes, stage.junit) == (90.0, (7, 8), ("/r/*.xml",))
    assert (stage.artifacts.paths, stage.artifacts.exclude, stage.artifacts.when) == (
        ("/a/**",),
        ("*.pyc",),
        "on_failure",
    )
    assert [(use.env, use.target, use.mode) for use in stage.secrets] == [
        ("", "", 0o444),
        ("TOKEN", "", 0o444),
        ("", "/x/y", 0o400),
    ]
    assert (stage.checkout, stage.cache) == ("/src", False)
    assert stage.container.env == (("A", "1"), ("B", None))
    assert stage.container.limits() == Limits(memory=64 << 20)
    assert stage.container.ulimits == (
        Rlimit(name="nofile", soft=100, hard=100),
        Rlimit(name="nproc", soft=1, hard=2),
    )


def service(tmp_path: Path, text: str) -> object:
    body = (
        f"images: {{app: {{}}}}\nstages: {{s: {{image: app, services: {{x: {{image: i}}, db: {text}}}}}}}\n"
    )
    return spec_of(tmp_path, body).stages[0].services[1]


def test_the_compose_keys_of_a_service(tmp_path: Path) -> None:
    db = service(
        tmp_path,
        """{image: p, command: "sh -c 'echo hi there'", entrypoint: [], init: true, restart: "on-failure:3",
            ports: ["8080:80", "127.0.0.1:53:53/udp", {target: 90, published: "9000", host_ip: "::1"}, 7],
            volumes: [data:/d, ./x:/x:ro, {type: tmpfs, target: /t, tmpfs: {size: 1m, mode: "700"}}, /anon],
            depends_on: {x: {condition: service_healthy}}, extra_hosts: ["a:1.2.3.4", "b=::1"],
            healthcheck: {test: [CMD, t], interval: 1s, timeout: 500ms, retries: 2, start_period: 1m},
            deploy: {replicas: 2, resources: {limits: {cpus: "0.5", memory: 32M, pids: 9}, reservations: {memory: 1m}}},
            tmpfs: "/run:size=64k", stop_grace_period: 3s, cap_add: [NET_ADMIN], labels: [a=b], sysctls: {net.x: 1}}""",
    )
    assert db.container.command == ("sh", "-c", "echo hi there")  # type: ignore[attr-defined]
    assert db.container.entrypoint == ()  # type: ignore[attr-defined]
    assert db.restart == RestartPolicy(name="on-failure", maximum=3)  # type: ignore[attr-defined]
    assert db.ports == (  # type: ignore[attr-defined]
        PortBinding(container_port=80, host_port=8080, host_ip="127.0.0.1"),
        PortBinding(container_port=53, protocol="udp", host_port=53, host_ip="127.0.0.1"),
        PortBinding(container_port=90, host_port=9000, host_ip="::1"),
        PortBinding(container_port=7, host_ip="127.0.0.1"),
    )
    assert db.container.volumes == (  # type: ignore[attr-defined]
        Mount(type="volume", target="/d", source="data"),
        Mount(type="bind", target="/x", source="./x", readonly=True, create_source=True),
        Mount(type="tmpfs", target="/t", size=1 << 20, mode=0o700),
        Mount(type="volume", target="/anon"),
    )
    assert [(d.service, d.condition) for d in db.depends_on] == [("x", "healthy")]  # type: ignore[attr-defined]
    assert isinstance(db.depends_on[0], Dependency)  # type: ignore[attr-defined]
    assert db.healthcheck == Healthcheck(("CMD", "t"), 10**9, 5 * 10**8, 60 * 10**9, 0, 2)  # type: ignore[attr-defined]
    limits = db.container.limits(db.deploy)  # type: ignore[attr-defined]
    assert limits == Limits(memory=32 << 20, memory_reservation=1 << 20, cpus=0.5, pids=9)
    assert db.container.extra_hosts == (("a", "1.2.3.4"), ("b", "::1"))  # type: ignore[attr-defined]


@pytest.mark.parametrize("port", ["'0.0.0.0:80:80'", "{target: 80, published: 80, host_ip: 0.0.0.0}"])
def test_a_port_is_for_the_network_only_where_that_is_written(tmp_path: Path, port: str) -> None:
    db = service(tmp_path, f"{{image: p, ports: [{port}, '81:81']}}")
    assert [p.host_ip for p in db.ports] == ["0.0.0.0", "127.0.0.1"]  # type: ignore[attr-defined]


def test_a_range_of_ports_is_several_bindings(tmp_path: Path) -> None:
    db = service(tmp_path, "{image: p, ports: ['8000-8002:80-82']}")
    assert [(p.host_port, p.container_port) for p in db.ports] == [(8000, 80), (8001, 81), (8002, 82)]  # type: ignore[attr-defined]


def test_a_disabled_healthcheck_is_none_whatever_the_image_says(tmp_path: Path) -> None:
    db = service(tmp_path, "{image: p, healthcheck: {disable: true}}")
    assert (db.healthcheck, db.no_healthcheck) == (None, True)  # type: ignore[attr-defined]


def test_a_compose_file_gives_an_environment_its_services(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "compose.yaml").write_text(
        "name: prod\nversion: '3.8'\nservices: {web: {image: app, networks: {front: {aliases: [w]}}}}\n"
        "networks: {front: {ipam: {config: [{subnet: 10.9.0.0/24}]}}}\nvolumes: {data: }\n"
    )
    environment = spec_of(tmp_path, HEAD + "deploy: {p: {compose: deploy/compose.yaml}}").environments[0]
    assert environment.project == "prod"
    assert environment.services[0].networks[0].aliases == ("w",)
    assert environment.networks[0].subnet == "10.9.0.0/24"


def test_a_mistake_in_a_compose_file_points_into_it(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("services:\n  web: {image: app, comand: x}\n")
    with pytest.raises(InvalidInput) as caught:
        spec_of(tmp_path, HEAD + "deploy: {p: {compose: c.yaml}}")
    assert str(caught.value.span) == "c.yaml:2:21"
    assert caught.value.hint == "did you mean `command`?"


def valid(instance: object) -> None:
    import jsonschema

    jsonschema.Draft202012Validator(schema_json()).validate(instance)


@pytest.mark.parametrize("example", ["hello", "web", "oss"])
def test_the_schema_accepts_the_examples(example: str) -> None:
    import yaml

    path = REPOSITORY / "examples" / example / "pipe.yaml"
    valid(yaml.safe_load(path.read_text()))


def test_the_schema_is_a_schema() -> None:
    import jsonschema

    jsonschema.Draft202012Validator.check_schema(schema_json())


@pytest.mark.parametrize("text", [m[0] for m in MISTAKES if "unknown key" in m[2]])
def test_the_schema_refuses_unknown_keys_too(text: str) -> None:
    import jsonschema
    import yaml

    instance = yaml.safe_load(text)
    with pytest.raises(jsonschema.ValidationError):
        valid(instance)
