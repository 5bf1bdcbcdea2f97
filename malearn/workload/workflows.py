"""The workflows of Maze's own logs: the same functions, the same edges."""

from __future__ import annotations

from malearn.workload.data_tasks import (
    conclude,
    conclude_vision,
    deal_pictures,
    gather_pictures,
    load_questions,
    open_audio,
    open_file,
    open_picture,
    pass_on,
    prepare_batches,
    read_document,
    read_pictures,
    receive,
)
from malearn.workload.job import Step, Workflow
from malearn.workload.model_tasks import answer, fuse, look, transcribe

__all__ = ["WORKFLOWS"]

_PAIR = ("task2_llm_process_qwen", "task3_llm_process_deepseek")
_HEARD = ("task3_llm_process_qwen", "task4_llm_process_deepseek")
_LOOKS = ("task4a_vlm_process", "task4b_vlm_process", "task4c_vlm_process", "task4d_vlm_process")
_BATCHES = tuple(f"task5{x}_llm_process_batch_{n}" for x, n in zip("abc", "123", strict=True))
_STRUCTURE = "task3b_llm_process_extract_structure_info"

WORKFLOWS = {
    workflow.name: workflow
    for workflow in (
        Workflow(
            "gaia/speech",
            50,
            (
                Step("task1_speech_process", (), open_audio),
                Step("task2_speech_process", ("task1_speech_process",), transcribe),
                *(Step(name, ("task2_speech_process",), answer) for name in _HEARD),
                Step("task5_llm_fuse_answer", _HEARD, fuse),
            ),
        ),
        Workflow(
            "openagi/multimodal_vqa_complex",
            20,
            (
                Step("task1_start_receive_task", (), receive),
                Step("task2_read_file", ("task1_start_receive_task",), read_pictures),
                Step("task3_file_process", ("task2_read_file",), deal_pictures),
                *(Step(name, ("task3_file_process",), look) for name in _LOOKS),
                Step("task4_merge_results", _LOOKS, gather_pictures),
                Step("task5_output_final_answer", ("task4_merge_results",), conclude),
            ),
        ),
        Workflow(
            "gaia/file",
            12,
            (
                Step("task1_file_process", (), open_file),
                *(Step(name, ("task1_file_process",), answer) for name in _PAIR),
                Step("task4_llm_fuse_answer", _PAIR, fuse),
            ),
        ),
        Workflow(
            "gaia/vision",
            12,
            (
                Step("task1_obtain_content", (), open_picture),
                Step("task2_vlm_process", ("task1_obtain_content",), look),
                Step("task3_output_final_answer", ("task2_vlm_process",), conclude_vision),
            ),
        ),
        Workflow(
            "openagi/document_qa",
            8,
            (
                Step("task1_start_receive_task", (), receive),
                Step("task2_read_file", ("task1_start_receive_task",), read_document),
                Step("task3a_extract_text_content", ("task2_read_file",), pass_on),
                Step(_STRUCTURE, ("task2_read_file",), answer),
                Step("task3c_load_questions_batch", ("task2_read_file",), load_questions),
                Step(
                    "task4a_merge_document_analysis",
                    ("task3a_extract_text_content", _STRUCTURE),
                    pass_on,
                ),
                Step(
                    "task4b_prepare_qa_context",
                    ("task4a_merge_document_analysis", "task3c_load_questions_batch"),
                    prepare_batches,
                ),
                *(Step(name, ("task4b_prepare_qa_context",), answer) for name in _BATCHES),
                Step("task7_merge_all_answers", _BATCHES, pass_on),
                Step("task8_output_final_answer", ("task7_merge_all_answers",), conclude),
            ),
        ),
    )
}
