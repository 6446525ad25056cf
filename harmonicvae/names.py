"""Every metric, parameter, tag, artifact and column name, once.

A value says side and norm: ``lipschitz_upper_l2_decoder``, never a bare
``lipschitz``.  The same strings are MLflow metric names and the columns of the
flat result tables, so a number can be followed from a table to its run.
"""

SIDES = ("encoder", "decoder")

# --- data sets ---------------------------------------------------------------
SINC = "sinc"
CIFAR10 = "cifar10"
CELEBA = "celeba"

# --- parameters of a trained model (MLflow params, columns of models.csv) ----
MODEL = "model"  # identifier of one trained model inside a study, e.g. sinc-e0.5-n0-s1460
DATASET = "dataset"
ENCODER_STD = "encoder_std"
INPUT_NOISE_STD = "input_noise_std"
SEED = "seed"
EPOCHS = "epochs"
PARAMETER_COLUMNS = (MODEL, DATASET, ENCODER_STD, INPUT_NOISE_STD, SEED, EPOCHS)
# what trained it (columns of models.csv)
CODE = "code"
DEVICE = "device"

# --- per-epoch metrics (MLflow metrics with step, columns of history.csv) ----
EPOCH = "epoch"
TRAIN_LOSS = "train_loss"
TRAIN_RECONSTRUCTION = "train_squared_error"
TRAIN_KL = "train_kl"
VALID_LOSS = "valid_loss"
EPOCH_SECONDS = "epoch_seconds"
#: Columns of a history, one row an epoch.
HISTORY_COLUMNS = (EPOCH, TRAIN_LOSS, TRAIN_RECONSTRUCTION, TRAIN_KL, VALID_LOSS, EPOCH_SECONDS)

# --- metrics of a trained model ----------------------------------------------
ELBO = "elbo"  # nats per sample, unit-variance Gaussian decoder, constant included
SQUARED_ERROR = "squared_error"  # mean over samples of ‖x − decode(encode(x))‖²
TRAIN_SECONDS = "train_seconds"
ACTIVE_UNITS = "active_units"
DECODING_VARIANCE_RATIO = "decoding_variance_ratio"
COLLAPSED = "collapsed"

# --- Lipschitz evaluator -----------------------------------------------------


def lipschitz_upper(side: str, method: str | None = None) -> str:
    """Metric name of an upper bound on the ℓ2 Lipschitz constant.

    >>> lipschitz_upper("decoder"), lipschitz_upper("decoder", "norm_product")
    ('lipschitz_upper_l2_decoder', 'lipschitz_upper_l2_decoder_norm_product')
    """
    return f"lipschitz_upper_l2_{side}" + (f"_{method}" if method else "")


def lipschitz_lower(side: str) -> str:
    """Metric name of a lower bound on the ℓ2 Lipschitz constant.

    >>> lipschitz_lower("encoder")
    'lipschitz_lower_l2_encoder'
    """
    return f"lipschitz_lower_l2_{side}"


def lipschitz_ratio(side: str) -> str:
    """Metric name of upper over lower bound; 1 means the constant is known.

    >>> lipschitz_ratio("encoder")
    'lipschitz_ratio_l2_encoder'
    """
    return f"lipschitz_ratio_l2_{side}"


def lipschitz_seconds(side: str) -> str:
    """Metric name of the wall time of the Lipschitz evaluation.

    >>> lipschitz_seconds("encoder")
    'lipschitz_seconds_encoder'
    """
    return f"lipschitz_seconds_{side}"


def lipschitz_gap(side: str) -> str:
    """Metric name of the relative duality gap of LipSDP's solution.

    >>> lipschitz_gap("encoder")
    'lipschitz_gap_l2_encoder'
    """
    return f"lipschitz_gap_l2_{side}"


#: Method that stands for the smallest certified bound of several.
BEST = "best"
# Columns of bounds.csv, one row a bound (records.Bound.to_dict, with MODEL and SIDE before it).
SIDE = "side"
BOUND_COLUMNS = (
    MODEL,
    SIDE,
    "kind",
    "method",
    "value",
    "status",
    "norm",
    "scope",
    "seconds",
    "slopes",
    "message",
)

# --- attack evaluator --------------------------------------------------------
IMAGE = "image"
RADIUS = "radius"
DAMAGE = "damage"
RELATIVE_DAMAGE = "relative_damage"
DEGRADATION = "log_likelihood_degradation"
REPRODUCTION_DEGRADATION = "reproduction_log_ratio"
BOUND_RATIO = "damage_bound_ratio"
SSIM = "ssim"
#: Columns of attacks.csv that are metrics too.
ATTACK_METRICS = (
    DAMAGE,
    RELATIVE_DAMAGE,
    DEGRADATION,
    REPRODUCTION_DEGRADATION,
    SSIM,
    BOUND_RATIO,
)
ATTACK_COLUMNS = (MODEL, IMAGE, RADIUS, "method", *ATTACK_METRICS)


def attack_metric(metric: str, radius: float, statistic: str = "mean") -> str:
    """Metric name of an attack result at one ℓ2 radius, aggregated over images.

    >>> attack_metric("damage", 10.0)
    'damage_l2_r10_mean'
    >>> attack_metric("damage", 0.25, "max")
    'damage_l2_r0.25_max'
    """
    return f"{metric}_l2_r{radius:g}_{statistic}"


ATTACK_SECONDS = "attack_seconds"
ATTACK_WARNINGS = "attack_warnings"  # findings of the attacks' self-audit

# Columns of margins.csv, one row an image and r = RELATIVE_R · ‖g(p(x))‖.
RELATIVE_R = "relative_r"
CERTIFIED_MARGIN = "certified_margin_l2"
FIRST_ORDER_MARGIN = "first_order_margin_l2"
ROBUSTNESS = "robustness_probability_l2"
#: Beginnings of the columns that are metrics too.
MARGIN_COLUMNS = (CERTIFIED_MARGIN, FIRST_ORDER_MARGIN, ROBUSTNESS)
#: Ends of the columns with the limits of an interval, which are not.
LIMITS = ("_lower", "_upper")


def robustness_column(radius: float) -> str:
    """Column of the simulated robustness at the perturbations found for an ℓ2 radius.

    >>> robustness_column(10.0)
    'robustness_probability_l2_r10'
    """
    return f"{ROBUSTNESS}_r{radius:g}"


def margin_metric(column: str, share: float) -> str:
    """Metric name of a column of margins.csv for one relative r, mean over images.

    >>> margin_metric("certified_margin_l2", 0.5)
    'certified_margin_l2_rel0.5_mean'
    """
    return f"{column}_rel{share:g}_mean"


# --- harmonic evaluator ------------------------------------------------------
#: Metrics of each side: Hermite spectrum under the headline Gaussian, power spectrum on slices.
MEAN_DEGREE = "hermite_mean_degree"
HERMITE_VARIANCE = "hermite_variance"
W1_SHARE = "hermite_w1_share"
JACOBIAN_ENERGY = "jacobian_energy"
SPECTRAL_CENTROID = "spectral_centroid"
HIGH_FREQUENCY_SHARE = "high_frequency_share"
HARMONIC_METRICS = (
    MEAN_DEGREE,
    HERMITE_VARIANCE,
    W1_SHARE,
    JACOBIAN_ENERGY,
    SPECTRAL_CENTROID,
    HIGH_FREQUENCY_SHARE,
)


def harmonic_metric(metric: str, side: str) -> str:
    """Metric name of a harmonic quantity of one network (or of "data", "reconstructions").

    >>> harmonic_metric("hermite_mean_degree", "decoder")
    'hermite_mean_degree_decoder'
    """
    return f"{metric}_{side}"


HARMONIC_SECONDS = "harmonics_seconds"
# Columns of spectra.csv (a row a point) and harmonics.csv (a row a derived number).
CENTRE = "centre"  # around what: prior, codes, data; or picture
STD = "std"
SPECTRUM = "spectrum"
SPECTRUM_COLUMNS = (
    MODEL,
    SIDE,
    CENTRE,
    STD,
    SPECTRUM,
    "abscissa",
    "value",
    "lower",
    "upper",
    "kind",
)

# --- evaluators, model types, tags, artifacts --------------------------------
EVALUATOR_LIPSCHITZ = "lipschitz"
EVALUATOR_MAX_DAMAGE = "max_damage"
EVALUATORS = (EVALUATOR_LIPSCHITZ, EVALUATOR_MAX_DAMAGE)
EVALUATOR_HARMONICS = "harmonics"
MODEL_TYPE = "vae"
REGISTERED_PREFIX = "harmonicvae"

TAG_FAILURE = "harmonicvae.failure"
TAG_ROLE = "harmonicvae.role"  # study, model, evaluation, comparison, search, candidate
TAG_MODEL = "harmonicvae.model"
TAG_VERSION = "harmonicvae.version"
TAG_DATA_DIGEST = "harmonicvae.data_digest"
TAG_DATASET = "harmonicvae.dataset"
TAG_DATA = "harmonicvae.data"  # JSON of the DataSpec that a model was trained on
TAG_STUDY_RUN = "harmonicvae.study_run"
TAG_PARENT = "mlflow.parentRunId"
TAG_KEY = "harmonicvae.key"  # content key of a model, or of a whole sweep
TAG_CODE = "harmonicvae.code"  # version of the code behind the key
TAG_SETTING = "harmonicvae.setting"  # key of data and parameters, whatever trained the model
TAG_DEVICE = "harmonicvae.device"  # "cpu", or the name of the GPU that trained a model
TAG_TRAINED = "harmonicvae.trained"  # URI of the stored model, once all of it is stored
TAG_EVALUATED = "harmonicvae.evaluated"  # key of the last complete evaluation
TAG_OWNER = "harmonicvae.owner"  # host:pid:start of the process that works on a run
TAG_HEARTBEAT = "harmonicvae.heartbeat"  # seconds since 1970 of the owner's last sign of life
TAG_SESSIONS = "harmonicvae.sessions"  # how often a sweep was started until it was complete
TAG_REUSED = "harmonicvae.reused"  # models taken over from earlier sweeps, run ids as JSON
TAG_CONTINUED_BY = "harmonicvae.continued_by"  # sweep that went on with an interrupted one

# of a scikit-learn search
TAG_CANDIDATE = "harmonicvae.candidate"  # row of cv_results.csv
TAG_ITERATION = "harmonicvae.iter"  # of a halving search
TAG_RESOURCES = "harmonicvae.n_resources"
TAG_BEST_RUN = "harmonicvae.best_run"
TAG_MODEL_NOT_STORED = "harmonicvae.model_not_stored"  # the reason

# of a comparison
TAG_COMPARED = "harmonicvae.compared"  # JSON list of the compared URIs
TAG_PROMOTED = "harmonicvae.promoted"  # models:/name/version that an alias was set on

ARTIFACT_MODEL = "model"
ARTIFACT_BOUNDS = "lipschitz/bounds.csv"
ARTIFACT_NETWORKS = "lipschitz/networks.json"
ARTIFACT_ATTACKS = "max_damage/attacks.csv"
ARTIFACT_ATTACK_ARRAYS = "max_damage/arrays.npz"
ARTIFACT_MARGINS = "max_damage/margins.csv"
ARTIFACT_SUCCESS = "max_damage/success.csv"
ARTIFACT_ATTACK_WARNINGS = "max_damage/warnings.json"
ARTIFACT_SPECTRA = "harmonics/spectra.csv"
ARTIFACT_HARMONICS = "harmonics/harmonics.csv"
ARTIFACT_HARMONIC_FIGURE = "harmonics/spectra.png"
ARTIFACT_REPORT = "report"
ARTIFACT_HISTORY = "training/history.csv"
ARTIFACT_RECONSTRUCTIONS = "training/reconstructions.npz"
ARTIFACT_EVALUATION = "evaluation.json"  # every metric of the last evaluation, NaN included
ARTIFACT_COMPARISON = "comparison"


def certificate_artifact(side: str, method: str) -> str:
    """Artifact path of the certificate of one bound.

    >>> certificate_artifact("decoder", "norm_product")
    'lipschitz/decoder_norm_product.certificate.json'
    """
    return f"lipschitz/{side}_{method}.certificate.json"


def figure_artifact(name: str) -> str:
    """Artifact path of a figure of the attacks.

    >>> figure_artifact("damage")
    'max_damage/damage.png'
    """
    return f"max_damage/{name}.png"


def weights_artifact(side: str) -> str:
    """Artifact path of the weights that the certificates of one side belong to.

    >>> weights_artifact("decoder")
    'lipschitz/decoder.mat'
    """
    return f"lipschitz/{side}.mat"


# --- files of a study's result folder ----------------------------------------
FILE_STUDY = "study.json"
FILE_MODELS = "models.csv"
FILE_SWEEP = "sweep.csv"  # models.csv without what differs between two runs of the same sweep
FILE_HISTORY = "history.csv"
FILE_BOUNDS = "bounds.csv"
FILE_ATTACKS = "attacks.csv"
FILE_MARGINS = "margins.csv"
FILE_SPECTRA = "spectra.csv"
FILE_HARMONICS = "harmonics.csv"
FILE_LOAD = "load.csv"
FILE_DISCREPANCY = "discrepancy.csv"  # what each error of the reproduction does

# --- tables of a scikit-learn search -----------------------------------------
CANDIDATE = "candidate"  # row of cv_results.csv
FOLD = "fold"
FILE_CURVES = "curves.csv"
FILE_CV_RESULTS = "cv_results.csv"
FILE_FOLD_SCORES = "fold_scores.csv"  # of a search that did not end
FOLDER_ARRAYS = "arrays"
FILE_REPORT = "report.html"

# --- files of a comparison's folder --------------------------------------------
FILE_COMPARISON = "comparison.html"
FILE_COMPARED_MODELS = "comparison.csv"
FILE_CONFIGURATIONS = "configurations.csv"
FILE_DIFFERENCES = "differences.csv"
FILE_DECISIONS = "decisions.csv"
FILE_SOURCES = "sources.csv"
