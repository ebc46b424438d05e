"""The build checks: name, what it is about, whether it has to be asked for (FEATURES A-102). Names and pages are Docker's."""

from __future__ import annotations

import re

from registry_client.values import frozen
from runtime.spans import Span

_PAGES = "https://docs.docker.com/go/dockerfile/rule/"


@frozen
class Rule:
    name: str
    description: str
    experimental: bool = False

    @property
    def url(self) -> str:
        """Docker's page about the rule."""
        words = re.findall("[A-Z]+(?![a-z])|[A-Z][a-z]+", self.name)
        return _PAGES + "-".join(words).lower() + "/"


@frozen
class Finding:
    """One thing a rule has to say."""

    rule: Rule
    message: str
    span: Span


# fmt: off
STAGE_NAME_CASING = Rule("StageNameCasing", "stage names should be in lower case")
FROM_AS_CASING = Rule("FromAsCasing", "FROM and AS should be written in the same case")
NO_EMPTY_CONTINUATION = Rule("NoEmptyContinuation", "an instruction should not have blank lines inside")
CONSISTENT_INSTRUCTION_CASING = Rule("ConsistentInstructionCasing", "all instructions of a file should be written in the same case")
DUPLICATE_STAGE_NAME = Rule("DuplicateStageName", "a stage name should be used once")
RESERVED_STAGE_NAME = Rule("ReservedStageName", "a stage should not have a reserved name")
JSON_ARGS_RECOMMENDED = Rule("JSONArgsRecommended", "ENTRYPOINT and CMD should be JSON arrays, so that signals reach the program")
MAINTAINER_DEPRECATED = Rule("MaintainerDeprecated", "MAINTAINER is deprecated; a label can name the author")
UNDEFINED_ARG_IN_FROM = Rule("UndefinedArgInFrom", "FROM should use variables only that an ARG above declares")
WORKDIR_RELATIVE_PATH = Rule("WorkdirRelativePath", "the first WORKDIR should be absolute: the base image's may change")
UNDEFINED_VAR = Rule("UndefinedVar", "variables should be defined before they are used")
MULTIPLE_INSTRUCTIONS_DISALLOWED = Rule("MultipleInstructionsDisallowed", "of several CMD, ENTRYPOINT or HEALTHCHECK in a stage only the last counts")
LEGACY_KEY_VALUE_FORMAT = Rule("LegacyKeyValueFormat", "ENV and LABEL should be written with `=`")
INVALID_BASE_IMAGE_PLATFORM = Rule("InvalidBaseImagePlatform", "the base image should be for the platform that is built")
REDUNDANT_TARGET_PLATFORM = Rule("RedundantTargetPlatform", "FROM --platform=$TARGETPLATFORM is what FROM does anyway")
SECRETS_USED_IN_ARG_OR_ENV = Rule("SecretsUsedInArgOrEnv", "ARG and ENV should not carry secrets")
INVALID_DEFAULT_ARG_IN_FROM = Rule("InvalidDefaultArgInFrom", "the defaults of global ARGs should make a valid base image name")
FROM_PLATFORM_FLAG_CONST_DISALLOWED = Rule("FromPlatformFlagConstDisallowed", "FROM --platform should not be a constant")
COPY_IGNORED_FILE = Rule("CopyIgnoredFile", "a file that is copied should not be ignored")
INVALID_DEFINITION_DESCRIPTION = Rule("InvalidDefinitionDescription", "a comment right above FROM or ARG should read `# <name> <description>`", experimental=True)
EXPOSE_PROTO_CASING = Rule("ExposeProtoCasing", "protocols of EXPOSE should be in lower case")
EXPOSE_INVALID_FORMAT = Rule("ExposeInvalidFormat", "EXPOSE should have no address and no host port")
# fmt: on

RULES = tuple(value for value in list(vars().values()) if isinstance(value, Rule))
