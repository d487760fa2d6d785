# Stage 2 on the masks of stage_1.py.
_base_ = 'aream_mm::aream/seg/own_photographs.py'
custom_imports = dict(imports=['scenes'])
work_dir = 'work_dirs/stage_2'
images = dict(_delete_=True, type='Scenes', data_root='data')

model = dict(decode_head=dict(num_classes=6))  # with background
train_dataloader = dict(
    dataset=dict(
        dataset=dict(images, ann_file='train.txt'),
        mask_dir='work_dirs/stage_1/pseudo_masks',
        tag_file='data/tags.csv',
    )
)
test_dataloader = dict(dataset=dict(dataset=dict(images, ann_file='val.txt')))
