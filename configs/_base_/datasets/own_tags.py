# Your own photographs (own.py) for stage 1. CAMs are made of the photographs that are trained on.
_base_ = ['own.py', 'tags.py']
train_pipeline, cam_pipeline, tag_pipeline = [
    [*_base_.load, *pipeline[1:]] for pipeline in (_base_.whole_pipeline, _base_.cam_pipeline, _base_.tag_pipeline)
]
load_mask = dict(type='aream_mm.LoadAnnotationsIfAny')
train_pipeline = [*train_pipeline[: len(_base_.load)], load_mask, *train_pipeline[len(_base_.load) :]]
test_pipeline = [*cam_pipeline[:-1], load_mask, cam_pipeline[-1]]

tagged = dict(dataset=_base_.photographs, tag_file=_base_.tag_file)
# Steps are counted, not epochs, so that 60 photographs get as many as 1,000; nothing is dropped at an epoch's end.
train_dataloader = dict(
    batch_size=16,
    num_workers=2,
    sampler=dict(type='InfiniteSampler'),
    dataset=dict(
        dataset=_base_.corrected,
        tag_file=_base_.tag_file,
        true_masks=bool(_base_.true_masks),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(batch_size=4, num_workers=2, dataset=dict(tagged, pipeline=test_pipeline))
test_dataloader = val_dataloader
pseudo_mask_dataloader = dict(batch_size=4, num_workers=2, dataset=dict(tagged, pipeline=cam_pipeline))
layer_entropy_dataloader = dict(batch_size=16, num_workers=2, dataset=dict(tagged, pipeline=tag_pipeline))
pseudo_masks = dict(dataloader=pseudo_mask_dataloader, test_cfg=dict(refine=dict(dilations=(1, 2, 4, 8))))
affinity_profile = dict(dataloader=val_dataloader)
