"""Which commands there are: section, name, where the click command lives, one line of help.

Nothing is imported here, so that `pipe --help` and completion stay instant. A new command is one line.
"""

from __future__ import annotations

from registry_client.tuples import NamedTuple


class Entry(NamedTuple):
    section: str
    name: str
    target: str  # "module:attribute"
    help: str


_CLI = "pipeline.cli."

COMMANDS = (
    Entry("Pipeline", "build", _CLI + "build_command:build", "Build the images of pipe.yaml, or of a Dockerfile"),
    Entry("Pipeline", "bake", _CLI + "bake:bake", "Build the targets of a bake or Compose file"),
    Entry("Pipeline", "test", _CLI + "test:test", "Build what is needed and run the stages of pipe.yaml"),
    Entry("Pipeline", "deploy", _CLI + "deploy:deploy", "Deploy to an environment what was built and tested"),
    Entry("Pipeline", "rollback", _CLI + "rollback:rollback", "Bring an environment's earlier release back"),
    Entry("Pipeline", "env", _CLI + "deploy:env", "Show the environments and what runs in them"),
    Entry("Pipeline", "plan", _CLI + "plan:plan", "Show what would run, and why"),
    Entry("Pipeline", "runs", _CLI + "logs:runs", "List earlier runs"),
    Entry("Pipeline", "resume", _CLI + "test:resume", "Go on with a run that was stopped"),
    Entry("Pipeline", "artifacts", _CLI + "artifacts:artifacts", "List and fetch what stages left"),
    Entry("Pipeline", "lint", _CLI + "lint:lint", "Check pipe.yaml and the Dockerfiles it names"),
    Entry("Pipeline", "schema", _CLI + "schema:schema", "Print the JSON Schema of pipe.yaml"),
    Entry("Pipeline", "hooks", _CLI + "hooks:hooks", "Install or run the git hooks"),
    Entry("Pipeline", "why", _CLI + "cache:why", "Say why a build step ran again"),
    Entry("Pipeline", "shell", _CLI + "shell:shell", "Look around in the state after a build step"),
    Entry("Containers", "run", _CLI + "containers:run", "Create and start a container"),
    Entry("Containers", "create", _CLI + "containers:create", "Create a container"),
    Entry("Containers", "start", _CLI + "container_verbs:start", "Start containers"),
    Entry("Containers", "stop", _CLI + "container_verbs:stop", "Stop containers"),
    Entry("Containers", "restart", _CLI + "container_verbs:restart", "Restart containers"),
    Entry("Containers", "kill", _CLI + "container_verbs:kill", "Send a signal to containers"),
    Entry("Containers", "rm", _CLI + "container_verbs:rm", "Remove containers"),
    Entry("Containers", "ps", _CLI + "container_views:ps", "List containers"),
    Entry("Containers", "exec", _CLI + "container_sessions:exec_", "Run a command in a running container"),
    Entry("Containers", "logs", _CLI + "logs:logs", "Show the log of a run, a stage or a container"),
    Entry("Containers", "attach", _CLI + "container_sessions:attach", "Attach to a running container"),
    Entry("Containers", "wait", _CLI + "container_verbs:wait", "Wait for containers to stop and print their exit codes"),
    Entry("Containers", "inspect", _CLI + "container_views:inspect", "Show everything about a container or image"),
    Entry("Containers", "cp", _CLI + "copy_files:cp", "Copy files between a container and the host"),
    Entry("Containers", "top", _CLI + "container_views:top", "Show the processes of a container"),
    Entry("Containers", "stats", _CLI + "container_views:stats", "Show what containers use"),
    Entry("Containers", "pause", _CLI + "container_verbs:pause", "Freeze containers"),
    Entry("Containers", "unpause", _CLI + "container_verbs:unpause", "Let frozen containers go on"),
    Entry("Containers", "port", _CLI + "container_views:port", "Show the published ports of a container"),
    Entry("Containers", "rename", _CLI + "container_verbs:rename", "Rename a container"),
    Entry("Images", "images", _CLI + "image_list:images", "List images"),
    Entry("Images", "pull", _CLI + "images:pull", "Pull an image from a registry"),
    Entry("Images", "push", _CLI + "images:push", "Push an image to a registry"),
    Entry("Images", "tag", _CLI + "images:tag", "Give an image a further name"),
    Entry("Images", "rmi", _CLI + "images:rmi", "Remove images"),
    Entry("Images", "save", _CLI + "archives:save", "Write images to a tar archive"),
    Entry("Images", "load", _CLI + "archives:load", "Read images from a tar archive"),
    Entry("Images", "import", _CLI + "archives:import_", "Make an image of a root file system's tar"),
    Entry("Images", "history", _CLI + "image_list:history", "Show how an image was made"),
    Entry("Images", "login", _CLI + "registry:login", "Log in to a registry"),
    Entry("Images", "logout", _CLI + "registry:logout", "Forget a registry's credentials"),
    Entry("Management", "container", _CLI + "containers:container", "Manage containers"),
    Entry("Management", "image", _CLI + "images:image", "Manage images"),
    Entry("Management", "network", _CLI + "networks:network", "Manage networks"),
    Entry("Management", "volume", _CLI + "volumes:volume", "Manage volumes"),
    Entry("Management", "registry", _CLI + "registry:registry", "The embedded registry"),
    Entry("Management", "daemon", _CLI + "daemon:daemon", "Serve Docker's Engine API"),
    Entry("Management", "cache", _CLI + "cache:cache", "The build cache"),
    Entry("Management", "builds", _CLI + "builds:builds", "The builds there were"),
    Entry("Management", "buildx", _CLI + "builds:buildx", "build, bake and history under docker's names"),
    Entry("Management", "system", _CLI + "system:system", "Disk usage and clean-up"),
    Entry("Management", "config", _CLI + "config:config", "Show the settings in force"),
    Entry("Management", "doctor", _CLI + "doctor:doctor", "Say what this host offers and lacks"),
    Entry("Management", "version", _CLI + "config:version", "Show the version"),
)  # fmt: skip
