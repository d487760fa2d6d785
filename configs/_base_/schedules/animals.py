# Stage 1 on the six classes of animals_tags.py, short enough for two CPU cores. A config adds the learning rates of its
# network and how long it trains classification alone.
_base_ = '../default_runtime.py'
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', weight_decay=0.05))
max_epochs = 4
param_scheduler = dict(type='CosineAnnealingLR', eta_min_ratio=0.01, convert_to_iter_based=True)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
