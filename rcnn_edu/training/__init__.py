"""Training and what comes of it: a detector's figures on a dataset, and the errors that it makes."""

from rcnn_edu.training.errors import ErrorBreakdown, Judgement, error_breakdown
from rcnn_edu.training.evaluate import Accuracy, Evaluation, detect_all, evaluate, evaluate_results
from rcnn_edu.training.log import read_log
from rcnn_edu.training.results import to_results
from rcnn_edu.training.train import TrainSettings, train

__all__ = [
    "Accuracy",
    "ErrorBreakdown",
    "Evaluation",
    "Judgement",
    "TrainSettings",
    "detect_all",
    "error_breakdown",
    "evaluate",
    "evaluate_results",
    "read_log",
    "to_results",
    "train",
]
