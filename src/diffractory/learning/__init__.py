"""From features to answers: split by material, models, aggregation, evaluation, saved models.

Here belongs what learns and what judges it: the hierarchy of forests and that of boosted trees, the
evidence of several patterns, calibrated probabilities, the training domain, accuracies under each protocol,
and models as plain arrays with where they come from (``models`` holds one that is included).
Never: physics, microscope files, figures, where work runs: what is to run elsewhere is a function that is
handed out.
May import: ``dataset``, ``patterns``, ``crystals`` and the foundation; scikit-learn, dask-ml, joblib,
LightGBM, numba.
"""
