"""The errors that a caller can cause. Each says on one line what was wrong, the value received and the next step."""


class OrreryError(ValueError):
    """Base of every error that is the caller's to mend; the command line prints it and exits with code 2."""


class RequestError(OrreryError):
    """A request document that cannot be carried out as it stands."""


class TaskError(OrreryError):
    """A task, embodiment or setting name that does not exist, or does not fit the checkpoint."""


class ContractError(OrreryError):
    """A request and a checkpoint disagree about what an action or a camera means."""


class CheckpointError(OrreryError):
    """A checkpoint that is incomplete, damaged or of another shape than its configuration says."""


class MediaError(OrreryError):
    """An image, video or sound that cannot be read within the limits."""


class DatasetError(OrreryError):
    """A recorded dataset that is incomplete or contradicts itself."""


class SettingsError(OrreryError):
    """A training or sampling setting outside its range."""
