"""Data for semantic segmentation: sets, their checks, augmentation, batches.

``open_data`` gives a ``SegmentationData``; ``check_labels`` looks at all of it before training;
``train_halves`` and ``val_loader`` make batches of it.
"""
