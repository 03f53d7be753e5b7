declare module "virtual:samples" {
  const samples: { query: string; documents: { _id: string; title?: string; text: string }[] }[];
  export default samples;
}
declare module "*.css";
